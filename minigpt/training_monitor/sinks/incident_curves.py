"""Incidents drawn on the curves: each is a run of its own in TensorBoard, laid over loss and gradient norm."""

import shutil
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.event_file import EventFile

LEAD_STEPS = 96
"""Steps remembered, so that an incident's curve can begin at its first bad step."""
LONGEST = 400
"""Steps after which an incident that does not end is not drawn any further."""
MOST = 40
"""Incidents drawn in one run: past that the legend helps nobody."""


class IncidentCurvesSink:
    """Draws `train/loss` and `train/grad_norm` of every incident that was told, from its first bad step to its end,
    into `folder`/incident_<number>_step_<step>_<name>: TensorBoard shows it in a colour of its own on the same chart.

    Opened with keep_through=N (0 for a new run), incidents of later, discarded steps are gone; with the state of then,
    also those that were told later, and those that were open go on.
    """

    def __init__(self, folder: Path, *, keep_through: int = 0) -> None:
        self._folder, self._keep_through = folder, keep_through
        self._recent: deque[tuple[int, float, float]] = deque(maxlen=LEAD_STEPS)
        self._open: dict[int, tuple[EventFile, str, int]] = {}
        self._drawn: list[str] = []
        for old in sorted(folder.glob("incident_*_step_*")):
            opened_at = old.name.split("_")[3]
            if not opened_at.isdecimal():  # somebody else's
                continue
            if int(opened_at) > keep_through:
                shutil.rmtree(old, ignore_errors=True)
            else:
                self._drawn.append(old.name)

    def step(self, signals: StepSignals, *, log: bool) -> None:
        point = (signals.step, signals.loss, signals.grad_norm)
        self._recent.append(point)
        for number, (file, _, opened_at) in list(self._open.items()):
            _draw(file, point)
            if signals.step - opened_at > LONGEST:
                self._close(number)

    def event(self, event: Event) -> None:
        if event.kind != "anomaly" or "incident" not in event.data:
            return
        number, status = int(event.data["incident"]), event.data["status"]
        if event.interrupts and number not in self._open and len(self._drawn) < MOST:
            self._draw_from(number, event.name, int(event.data["opened_at"]))
        elif status in ("transient", "resolved") and self._is_drawing(number, event.name):
            self._close(number)

    def _is_drawing(self, number: int, name: str) -> bool:
        return number in self._open and self._open[number][1] == name

    def _draw_from(self, number: int, name: str, opened_at: int) -> None:
        folder = _folder_name(number, name, opened_at)
        self._drawn.append(folder)
        # A mark even so: TensorBoard's server takes the first one for a beginning, and hides nothing at it.
        file = EventFile(self._folder / folder, purge_step=opened_at)
        self._open[number] = (file, name, opened_at)
        for point in self._recent:
            if point[0] >= opened_at:
                _draw(file, point)

    def _close(self, number: int) -> None:
        file, _, _ = self._open.pop(number)
        file.close()

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        """Validation is no part of an incident."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Other numbers are drawn by the main sink."""

    @property
    def trouble(self) -> OSError | None:
        return next((file.trouble for file, _, _ in self._open.values() if file.trouble is not None), None)

    def flush(self) -> None:
        for file, _, _ in self._open.values():
            file.flush()

    def close(self) -> None:
        with ExitStack() as stack:
            for number in list(self._open):
                stack.callback(self._close, number)

    def state_dict(self) -> dict[str, Any]:
        return {
            "recent": [list(point) for point in self._recent],
            "open": [[number, name, opened_at] for number, (_, name, opened_at) in self._open.items()],
            "drawn": list(self._drawn),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for later in set(self._drawn) - set(state["drawn"]):
            shutil.rmtree(self._folder / later, ignore_errors=True)
        self._drawn = list(state["drawn"])
        self._recent.extend((step, loss, norm) for step, loss, norm in state["recent"])
        for number, name, opened_at in state["open"]:
            file = EventFile(
                self._folder / _folder_name(number, name, opened_at), purge_step=self._keep_through + 1
            )
            self._open[number] = (file, name, opened_at)


def _folder_name(number: int, name: str, opened_at: int) -> str:
    return f"incident_{number}_step_{opened_at}_{name}"


def _draw(file: EventFile, point: tuple[int, float, float]) -> None:
    step, loss, grad_norm = point
    file.add({"train/loss": loss, "train/grad_norm": grad_norm}, step)
