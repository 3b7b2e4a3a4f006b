"""What the loop should do after a step: one dataclass an action, matched with `case` in the loop."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Continue:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class SkipUpdate:
    """The update was already refused on the device; for the record only."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Save nothing as healthy, end the run and print the reason."""

    step: int
    reason: str
    """One sentence in the user's language."""
    cause: str
    """Name of the finding behind it."""


Action = Continue | SkipUpdate | Stop
