"""monitor_logs: everything the monitor saw, as TensorBoard curves with the anomalies marked on them."""

from collections import deque
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.curves import STATUS_MARKS, step_values
from minigpt.training_monitor.sinks.event_file import EventFile
from minigpt.training_monitor.sinks.thinning import Thinning, stride_at

CLIPPED_SHARE_STEPS = 100
EVERY_STEP_UNTIL = 32_768
"""Up to here every step is a point on the curves; then every second one, from twice as many on every fourth, ...: a
million steps make a hundred thousand points, which TensorBoard loads and shows without effort."""
LEAD_STEPS, TRAIL_STEPS = 64, 128
"""Around an anomaly every step is shown: those since the last point, at most LEAD_STEPS, and TRAIL_STEPS after it."""
FIRST_MARKS = 200
"""Anomalies of one name and status that are marked each; then every 2nd, 4th, ..."""


class TensorBoardSink:
    """One event a step with all its scalars; layer norms every `layers_every` steps. Long runs are thinned out.

    Opened with keep_through=N (0 for a new run), TensorBoard drops what older files show after step N. Which steps
    are shown depends on nothing but their numbers and `state_dict`: a resumed run shows those that it would have
    shown anyway.
    """

    def __init__(self, folder: Path, *, keep_through: int = 0, layers_every: int = 10) -> None:
        self._folder, self._keep_through, self._layers_every = folder, keep_through, layers_every
        self._clipped: deque[bool] = deque(maxlen=CLIPPED_SHARE_STEPS)
        self._unshown: deque[tuple[int, dict[str, float]]] = deque(maxlen=LEAD_STEPS)
        self._all_until = 0
        self._thinning = Thinning(FIRST_MARKS)
        self._file = EventFile(folder, purge_step=keep_through + 1)
        self._newest_step = 0
        self._of_newest: list[tuple[str, dict[str, float] | str]] = []
        """What was written of that step: "" and numbers by their tags, or a tag and its text."""

    def step(self, signals: StepSignals, *, log: bool) -> None:
        self._clipped.append(signals.clipped)
        stride = 1 if signals.step <= self._all_until else stride_at(signals.step, EVERY_STEP_UNTIL)
        is_shown = signals.step % stride == 0
        values = step_values(signals)
        values["train/clipped_share"] = sum(self._clipped) / len(self._clipped)
        layers_every = self._layers_every * (stride if is_shown else 1)
        if signals.step % layers_every == 0 or (stride == 1 and not signals.finite):
            values |= _layer_values(signals)
        if signals.look is not None:
            values |= _look_values(signals.look)
        if is_shown:
            self._unshown.clear()
            self.scalars(signals.step, values)
        else:
            self._unshown.append((signals.step, values))

    def event(self, event: Event) -> None:
        if event.kind == "evaluation":
            return
        status = event.data.get("status")
        if self._thinning.left_out(f"{event.kind}/{event.name}/{status}") is None:
            return
        if event.kind == "anomaly":
            self._show_around(event.step)
        self._write(event.step, f"{event.kind}/{event.name}", event.text.replace("\n", "  \n"))
        if event.kind == "anomaly" and isinstance(status, str):
            self.scalars(event.step, {f"anomalies/{event.name}": STATUS_MARKS[status]})

    def _show_around(self, step: int) -> None:
        unshown = list(self._unshown)
        self._unshown.clear()
        self._all_until = step + TRAIL_STEPS
        for earlier, values in unshown:
            self.scalars(earlier, values)

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        self.scalars(step, {f"validation/{name}": value for name, value in results.items()})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._write(step, "", dict(values))

    def _write(self, step: int, tag: str, content: dict[str, float] | str) -> None:
        if step > self._newest_step:
            self._newest_step, self._of_newest = step, []
        if step == self._newest_step:
            self._of_newest.append((tag, content))
        if isinstance(content, str):
            self._file.add_text(tag, content, step)
        else:
            self._file.add(content, step)

    def flush(self) -> None:
        """Everything so far is on disk when this returns; an OSError else."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    @property
    def trouble(self) -> OSError | None:
        return self._file.trouble

    def take_lost(self) -> int:
        return self._file.take_lost()

    def state_dict(self) -> dict[str, Any]:
        return {
            "clipped": list(self._clipped),
            "unshown": [[step, dict(values)] for step, values in self._unshown],
            "all_until": self._all_until,
            "thinning": self._thinning.state_dict(),
            "newest_step": self._newest_step,
            "of_newest": [[tag, content] for tag, content in self._of_newest],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._clipped.extend(state["clipped"])
        self._unshown.extend((step, dict(values)) for step, values in state["unshown"])
        self._all_until = state["all_until"]
        self._thinning.load_state_dict(state["thinning"])
        if "of_newest" in state:
            self._begin_with(state["newest_step"], state["of_newest"])

    def _begin_with(self, step: int, written: list[tuple[str, dict[str, float] | str]]) -> None:
        """Hide the step of the checkpoint too, and write again what it knows of that one.

        An evaluation that was made up for, or a rollback, belongs to the step that the run stands at: a process that
        died before it was saved has left it in an older file, and it comes again.
        """
        if not self._keep_through:
            return
        self._file = EventFile(self._folder, purge_step=self._keep_through)
        if step == self._keep_through:
            for tag, content in written:
                self._write(step, tag, content)


def _layer_values(signals: StepSignals) -> dict[str, float]:
    """What changes slowly, or is of interest only when something is wrong."""
    layers = {
        "grad_norm": signals.group_norms,
        "weight_norm": signals.weight_norms,
        "update_ratio": signals.update_ratios,
    }
    values = {
        f"train_layers/{kind}_{name}": value for kind, of in layers.items() for name, value in of.items()
    }
    known = {"train/leftover_grad_norm": signals.leftover_grad_norm}
    if signals.batch is not None:
        batch = signals.batch
        known |= {
            "train_data/distinct_tokens": batch.distinct_tokens,
            "train_data/top_fraction": batch.top_fraction,
            "train_data/label_match": batch.label_match,
            "train_data/label_copy": batch.label_copy,
            "train_data/ignored_fraction": batch.ignored_fraction,
        }
    return values | {tag: value for tag, value in known.items() if value is not None}


def _look_values(look: Look) -> dict[str, float]:
    """The numbers of a closer look: one curve a layer, or one in all."""
    values: dict[str, float] = {}
    for field in fields(look):
        found = getattr(look, field.name)
        if isinstance(found, Mapping):
            values |= {f"train_forward/{field.name}_{name}": value for name, value in found.items()}
        elif isinstance(found, (int, float)):
            values[f"train_forward/{field.name}"] = found
    return values
