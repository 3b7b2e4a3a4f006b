"""From a file's entries to one run's steps in order: repeated steps, several runs in one file, missing fields."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from itertools import islice

from minigpt.training_monitor.records.record import Entry, Note, Options, Source, Tally, UnreadableRecordError
from minigpt.training_monitor.signals import StepSignals

UNKNOWN_NORM = -1.0
"""Gradient norm of a step whose record has none: no norm is negative, and the detectors pass over it."""
UNKNOWN_LOSS = 1.0
"""Loss of a step whose record has none: stands still; the rules about the loss are off then."""
MOST_STRETCHES = 10_000
LR_ROUNDING = 2e-3
"""Logs print three or four digits of the learning rate."""
_ZERO_IS_UNKNOWN = frozenset(
    ("lr", "tokens", "tokens_seen", "seconds", "tokens_per_second", "mfu", "memory_bytes")
)
"""Fields that nobody measured where they are 0."""
_KNOWN = frozenset(known.name for known in fields(StepSignals))


@dataclass(slots=True)
class Stretch:
    """Entries whose steps rise; a resumed run has one for each session."""

    first: int
    last: int
    index: int
    """Place of its first entry in the file."""
    count: int = 0
    present: Counter[str] = field(default_factory=Counter)
    """Entries that have each field."""
    first_lr: float | None = None
    peak_lr: float = 0.0
    peaked_at: int = 0
    """First step at the highest learning rate."""

    def add(self, entry: Entry) -> None:
        self.last = entry["step"]
        self.count += 1
        self.present.update([name for name, value in entry.items() if _is_told(name, value)])
        lr = entry.get("lr")
        if lr is not None:
            self.first_lr = lr if self.first_lr is None else self.first_lr
            if lr > (1 + LR_ROUNDING) * self.peak_lr:
                self.peak_lr, self.peaked_at = lr, self.last


@dataclass(frozen=True, slots=True)
class Timeline:
    """One run's steps, each once, and what its record has."""

    source: Source
    stretches: list[Stretch]
    """Of this run, in the file's order."""
    present: Counter[str]
    """Entries that have each field of StepSignals, those included that a resume discarded."""
    notes: tuple[Note, ...]
    has_loss: bool
    has_norm: bool

    @property
    def first(self) -> int:
        return min(stretch.first for stretch in self.stretches)

    @property
    def last(self) -> int:
        """Last step of the run: of its last session, since a resume discards what was later."""
        return self.stretches[-1].last

    @property
    def count(self) -> int:
        """Recorded steps."""
        return self.present["step"]

    @property
    def every(self) -> int:
        """Usual distance between recorded steps: 1 for a full record."""
        return max(1, round((self.last - self.first) / (self.count - 1))) if self.count > 1 else 1

    @property
    def warmup_steps(self) -> int | None:
        """Last step of a warm-up that the learning rates show; None when they show none."""
        first = self.stretches[0]
        peak = max(self.stretches, key=lambda stretch: stretch.peak_lr)
        if first.first_lr is None or first.first_lr >= 0.9 * peak.peak_lr:
            return None
        return peak.peaked_at

    def steps(self) -> Iterator[StepSignals]:
        """The signals, steps rising; from the start at every call."""
        for entry in _of_run(self.source, self.stretches):
            signals = {name: value for name, value in entry.items() if name in _KNOWN and value is not None}
            if "tokens_seen" in signals:
                signals["tokens_seen"] = int(signals["tokens_seen"])
            signals.setdefault("loss", UNKNOWN_LOSS)
            signals.setdefault("grad_norm", UNKNOWN_NORM)
            yield StepSignals(**signals)


def look_through(source: Source, options: Options) -> Timeline:
    """Reads the file once, a line at a time, and finds the run that is asked for.

    Raises:
        UnreadableRecordError: it has no usable step, or not as many runs.
    """
    tally = Tally()
    runs = _runs(source, tally)
    if not runs:
        raise UnreadableRecordError(
            f"{source.path}: no step with a loss or a gradient norm in this {source.kind}"
            + (f" ({tally.bad_lines} lines could not be read)" if tally.bad_lines else "")
            + "; give a record of a run that has begun to train"
        )
    wanted = len(runs) if options.run is None else options.run
    if not 1 <= wanted <= len(runs):
        raise UnreadableRecordError(
            f"--run {wanted}: {source.path} holds {len(runs)} run{'s' if len(runs) > 1 else ''}; "
            f"give a number from 1 to {len(runs)}"
        )
    stretches = runs[wanted - 1]
    present = sum((stretch.present for stretch in stretches), Counter[str]())
    notes = [*source.notes, *_notes(runs, wanted, tally, present)]
    has_loss, has_norm = bool(present["loss"]), bool(present["grad_norm"])
    return Timeline(source, stretches, present, tuple(notes), has_loss, has_norm)


def _notes(runs: list[list[Stretch]], wanted: int, tally: Tally, present: Counter[str]) -> Iterator[Note]:
    if len(runs) > 1:
        yield Note("several_runs", {"count": len(runs), "run": wanted})
    resumes = len(runs[wanted - 1]) - 1
    if resumes:
        at = ", ".join(str(stretch.first) for stretch in runs[wanted - 1][1:6]) + (
            ", ..." if resumes > 5 else ""
        )
        yield Note("resumed", {"count": resumes, "at": at})
    if tally.bad_lines:
        yield Note("bad_lines", {"count": tally.bad_lines, "first": tally.first_bad_line})
    for name in ("loss", "grad_norm"):
        if 0 < present[name] < present["step"]:
            yield Note(
                "gaps", {"field": name, "count": present["step"] - present[name], "of": present["step"]}
            )


def _runs(source: Source, tally: Tally) -> list[list[Stretch]]:
    """The file's runs, each a list of stretches: a step that does not rise begins a new stretch, and one at or
    before the run's first step a new run."""
    runs: list[list[Stretch]] = []
    count = 0
    for index, entry in enumerate(merged(source.entries(tally))):
        step = entry["step"]
        if runs and step > runs[-1][-1].last and not entry.get("new_run"):
            runs[-1][-1].add(entry)
            continue
        count += 1
        if count > MOST_STRETCHES:
            raise UnreadableRecordError(f"{source.path}: its steps do not rise; sort it by step")
        stretch = Stretch(step, step, index)
        stretch.add(entry)
        if not runs or entry.get("new_run") or step <= runs[-1][0].first:
            runs.append([stretch])
        else:
            runs[-1].append(stretch)
    return runs


def _of_run(source: Source, stretches: list[Stretch]) -> Iterator[Entry]:
    """The entries of one run that no later session discarded."""
    entries = merged(source.entries(Tally()))
    at = 0
    for place, stretch in enumerate(stretches):
        end = min((later.first for later in stretches[place + 1 :]), default=stretch.last + 1)
        for entry in islice(entries, stretch.index - at, stretch.index - at + stretch.count):
            if entry["step"] < end:
                yield entry
        at = stretch.index + stretch.count


def _is_told(name: str, value: object) -> bool:
    if value is None or value == {}:
        return False
    return bool(value) or name not in _ZERO_IS_UNKNOWN


def merged(entries: Iterator[Entry]) -> Iterator[Entry]:
    """One entry for neighbours of equal step (loss and lr on lines of their own); those without loss and norm go."""
    held: Entry | None = None
    for entry in entries:
        if held is not None and held["step"] == entry["step"] and not entry.get("new_run"):
            held |= entry
            continue
        if held is not None and ("loss" in held or "grad_norm" in held):
            yield held
        held = entry
    if held is not None and ("loss" in held or "grad_norm" in held):
        yield held
