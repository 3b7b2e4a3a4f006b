"""What a reader gives: the entries of a file, as often as asked for, and what is known of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
"""One step: `step` and whatever fields of StepSignals the record has, by those names."""


class UnreadableRecordError(ValueError):
    """A path that holds no record which can be judged; says what, found, wanted and the way out."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something the reader of a report should know about the record: a key of the report's words."""

    key: str
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Tally:
    """What one pass over a file could not use."""

    bad_lines: int = 0
    first_bad_line: int = 0

    def bad(self, line: int) -> None:
        """Counts the line (from 1) as unreadable."""
        self.bad_lines += 1
        self.first_bad_line = self.first_bad_line or line


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A validation loss, nats a token."""

    step: int
    loss: float


@dataclass(frozen=True, slots=True)
class PastEvent:
    """What the run's own monitor wrote while it ran; superseded ones are left out."""

    step: int
    kind: str
    name: str
    text: str
    interrupts: bool
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """A record before it has been looked through."""

    kind: str
    """What it is, for people: "Hugging Face Trainer state"."""
    path: Path
    """The file or folder that is read."""
    entries: Callable[[Tally], Iterator[Entry]]
    """In the file's order, one line at a time, from the start at every call."""
    notes: tuple[Note, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    events: tuple[PastEvent, ...] = ()
    config_path: Path | None = None
    """The config.yaml of a MiniGPT run."""
    is_minigpt: bool = False
    """Whether advice may be given as MiniGPT's --set lines."""
    watched_live: bool = False
    """Whether a monitor watched the run while it ran, with more than this record has."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user says about a record."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Field of StepSignals -> the column, key or tag that holds it."""
    run: int | None = None
    """Which of several runs in one file, from 1; None: the last."""
