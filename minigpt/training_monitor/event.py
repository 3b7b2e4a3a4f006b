"""One line of a run's history: an anomaly, an action, a save, a resume, an evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EventKind = Literal["anomaly", "action", "save", "resume", "evaluation", "note"]


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a run's history; `text` is for people, `data` (plain values) for programs."""

    step: int
    kind: EventKind
    name: str
    text: str
    interrupts: bool = False
    """Whether the console and the log show it; events.jsonl and TensorBoard always do."""
    data: Mapping[str, Any] = field(default_factory=dict)
