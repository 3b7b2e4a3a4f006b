"""What the monitor knows of the data of one step."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """Identity and make-up of a step's tokens, over all of its micro-batches."""

    hash: int
    """Equal for equal inputs in equal order."""
    tokens: int
    distinct_tokens: int
    """Different ids among the inputs."""
    top_fraction: float
    """Share of the most frequent id."""
    label_match: float | None = None
    """Share of targets that equal the next input (1.0 for packed next-token windows); None: no targets seen."""
    label_copy: float | None = None
    """Share of targets that equal the input at their own position (high: the label leaks)."""
    ignored_fraction: float | None = None
    """Share of targets masked out with -100."""
