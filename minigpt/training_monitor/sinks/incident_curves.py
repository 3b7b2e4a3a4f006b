"""Incidents drawn on the curves: each is a run of its own in TensorBoard, laid over loss and gradient norm."""

import shutil
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals

LEAD_STEPS = 96
"""Steps remembered, so that an incident's curve can begin at its first bad step."""
LONGEST = 400
"""Steps after which an incident that does not end is not drawn any further."""
MOST = 40
"""Incidents drawn in one run: past that the legend helps nobody."""


class IncidentCurvesSink:
    """Draws `train/loss` and `train/grad_norm` of every incident that was told, from its first bad step to its end,
    into `folder`/incident_<number>_step_<step>_<name>: TensorBoard shows it in a colour of its own on the same chart.

    Opened with keep_through=N (0 for a new run), incidents of later, discarded steps are gone.
    """

    def __init__(self, folder: Path, *, keep_through: int = 0) -> None:
        self._folder = folder
        self._recent: deque[tuple[int, float, float]] = deque(maxlen=LEAD_STEPS)
        self._open: dict[int, tuple[SummaryWriter, str, int]] = {}
        self._drawn = 0
        for old in sorted(folder.glob("incident_*_step_*")):
            if int(old.name.split("_")[3]) > keep_through:
                shutil.rmtree(old, ignore_errors=True)
            else:
                self._drawn += 1

    def step(self, signals: StepSignals, *, log: bool) -> None:
        point = (signals.step, signals.loss, signals.grad_norm)
        self._recent.append(point)
        for number, (writer, _, opened_at) in list(self._open.items()):
            _draw(writer, point)
            if signals.step - opened_at > LONGEST:
                self._close(number)

    def event(self, event: Event) -> None:
        if event.kind != "anomaly" or "incident" not in event.data:
            return
        number, status = int(event.data["incident"]), event.data["status"]
        if event.interrupts and number not in self._open and self._drawn < MOST:
            self._draw_from(number, event.name, int(event.data["opened_at"]))
        elif status in ("transient", "resolved") and self._is_drawing(number, event.name):
            self._close(number)

    def _is_drawing(self, number: int, name: str) -> bool:
        return number in self._open and self._open[number][1] == name

    def _draw_from(self, number: int, name: str, opened_at: int) -> None:
        self._drawn += 1
        writer = SummaryWriter(str(self._folder / f"incident_{number}_step_{opened_at}_{name}"))
        self._open[number] = (writer, name, opened_at)
        for point in self._recent:
            if point[0] >= opened_at:
                _draw(writer, point)
        writer.flush()

    def _close(self, number: int) -> None:
        writer, _, _ = self._open.pop(number)
        writer.close()

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        """Validation is no part of an incident."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Other numbers are drawn by the main sink."""

    def flush(self) -> None:
        for writer, _, _ in self._open.values():
            writer.flush()

    def close(self) -> None:
        for number in list(self._open):
            self._close(number)


def _draw(writer: SummaryWriter, point: tuple[int, float, float]) -> None:
    step, loss, grad_norm = point
    writer.add_scalar("train/loss", loss, step)
    writer.add_scalar("train/grad_norm", grad_norm, step)
