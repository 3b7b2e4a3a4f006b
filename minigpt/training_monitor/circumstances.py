"""What is known of an incident when its cause is asked for, and the form of the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.movements import Movement
from minigpt.training_monitor.run_facts import RunFacts

Values = dict[str, float | int | str]
Reason = tuple[str, Values]
"""Key of a phrase in words, and what to fill in."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """All that is known of an incident when its cause is asked for."""

    findings: Mapping[str, Finding]
    moved: Mapping[str, Movement]
    lr_jump: Movement | None
    """A change of the learning rate from one step to the next, by a factor of two or more."""
    facts: RunFacts
    opened_at: int
    steady: frozenset[str] = frozenset()
    """Quantities that are known, before and after, and did not change."""

    def evidence(self, name: str, key: str) -> float | int | str | bool | None:
        finding = self.findings.get(name)
        return None if finding is None else finding.evidence.get(key)

    latest: Mapping[str, float] = field(default_factory=dict)
    """The newest known value of each quantity."""
    earliest: Mapping[str, float] = field(default_factory=dict)
    """The oldest value of each quantity that is still remembered."""
    consequences: frozenset[str] = frozenset()
    """Findings that came clearly after one that explains them."""
    told: "Cause | None" = None
    """The cause that the user was told when this incident first interrupted."""

    def any_of(self, *names: str) -> bool:
        return any(name in self.findings for name in names)


@dataclass(frozen=True, slots=True)
class Cause:
    """A likely cause: its name, how strongly the evidence points to it, and the evidence."""

    name: str
    weight: float
    reasons: tuple[Reason, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "weight": self.weight,
            "reasons": [list(reason) for reason in self.reasons],
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Cause":
        return cls(state["name"], state["weight"], tuple((key, values) for key, values in state["reasons"]))


@dataclass(frozen=True, slots=True)
class Explanation:
    """Causes, likeliest first, and those that the evidence rules out."""

    causes: tuple[Cause, ...]
    ruled_out: tuple[Reason, ...] = field(default=())
