"""events.jsonl: one record an anomaly, action, save, resume or evaluation."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.json_lines import JsonLines, Revise, line_of, parsed
from minigpt.training_monitor.sinks.thinning import Thinning

FIRST_OF_A_KIND, FIRST_EVALUATIONS = 1000, 20_000
"""So many of one name and status are recorded each; then every 2nd, 4th, ...: a run in which something is wrong at
every step for a million steps leaves a file of megabytes."""
_REGULAR = ("evaluation", "save", "resume", "action")


class EventsSink:
    """The run's history. Opened with keep_through=N, events of later, now discarded steps get
    "superseded": true instead of vanishing: why a run was taken back is worth knowing.

    `keep_bytes`: the file's length when the checkpoint of that step was written, where it is known. What comes after
    it is discarded too, also where it tells of that very step."""

    def __init__(self, path: Path, *, keep_through: int = 0, keep_bytes: int | None = None) -> None:
        self._lines = JsonLines(path, lambda: _superseded_after(keep_through, keep_bytes))
        self._thinning = {True: Thinning(FIRST_EVALUATIONS), False: Thinning(FIRST_OF_A_KIND)}

    def step(self, signals: StepSignals, *, log: bool) -> None:
        """Steps stand in metrics.jsonl."""

    def event(self, event: Event) -> None:
        thinning, key = self._thinning[event.kind in _REGULAR], _key(event)
        left_out = thinning.left_out(key)
        if left_out is not None:
            data = {**event.data, "left_out": left_out} if left_out else event.data
            self._append({**asdict(event), "data": data})
        elif thinning.just_began(key):
            text = f"{key}: from here on only every second one is recorded, then every fourth, and so on"
            self._append(asdict(Event(event.step, "note", "left_out", text, data={"what": key})))

    def _append(self, record: dict[str, Any]) -> None:
        self._lines.append({"time": datetime.now(UTC).isoformat(timespec="seconds"), **record})

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        text = " ".join(f"{name}={value:.4f}" for name, value in results.items())
        self.event(Event(step, "evaluation", "evaluation", text, data=dict(results)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers are for TensorBoard and the log."""

    def flush(self) -> None:
        """Everything so far is on disk when this returns; an OSError else."""
        self._lines.flush()

    def close(self) -> None:
        self._lines.close()

    def digest(self) -> dict[str, Any]:
        """What a checkpoint notes of the file, once it is flushed."""
        return self._lines.digest()

    @property
    def trouble(self) -> OSError | None:
        return self._lines.trouble

    def take_lost(self) -> int:
        return self._lines.take_lost()

    def state_dict(self) -> dict[str, Any]:
        return {"regular": self._thinning[True].state_dict(), "others": self._thinning[False].state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._thinning[True].load_state_dict(state["regular"])
        self._thinning[False].load_state_dict(state["others"])


def _key(event: Event) -> str:
    """What is counted together: a finding's beginnings and its ends go by the same numbers, so they stay in pairs."""
    status = event.data.get("status")
    return f"{event.kind}/{event.name}" + (f"/{status}" if isinstance(status, str) else "")


def _superseded_after(keep_through: int, keep_bytes: int | None) -> Revise:
    """Keeps every whole record, and marks those of later steps and those after the first `keep_bytes`."""
    at = 0

    def revise(line: bytes) -> bytes | None:
        nonlocal at
        record, at = parsed(line) if line.endswith(b"\n") else None, at + len(line)
        if record is None:
            return None
        step = record.get("step")
        is_later = type(step) is int and (step > keep_through or (keep_bytes is not None and at > keep_bytes))
        if not is_later or record.get("superseded") is True:
            return line
        return line_of({**record, "superseded": True})

    return revise
