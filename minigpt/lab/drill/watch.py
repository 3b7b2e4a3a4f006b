"""The monitor in the drill's loop, and a sink that keeps every step's signals for the judge."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor

from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.detectors.registry import RULES
from minigpt.training_monitor.event import Event
from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals

if TYPE_CHECKING:
    from minigpt.lab.drill.training import Training

PRECISIONS = {"fp32": "off", "pure bf16": "bf16"}
"""As the monitor calls them; the others are called the same."""

MarkKind = Literal["declared", "resumed", "resumed without state"]


class Mark(NamedTuple):
    """Something that the user told the monitor before `step`."""

    step: int
    kind: MarkKind


class Recorder:
    """A sink that keeps the signals."""

    def __init__(self) -> None:
        self.signals: list[StepSignals] = []

    def step(self, signals: StepSignals, *, log: bool) -> None:
        self.signals.append(signals)

    def event(self, event: Event) -> None:
        """What is said of the signals is the judge's business."""

    def evaluation(self, step: int, results: Mapping[str, float]) -> None: ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def silent_config() -> MonitorConfig:
    """Measures as always and says nothing: a recording must not depend on the rules it is to judge."""
    usual = MonitorConfig()
    return replace(usual, **{name: replace(getattr(usual, name), enabled=False) for name in RULES})


class Watch:
    """The monitor of one training: what it measured, and what the user told it."""

    def __init__(self, training: "Training") -> None:
        self._training = training
        self.recorder = Recorder()
        self.marks: list[Mark] = []
        self._loop = self._monitor()
        self.facts: RunFacts = self._loop.monitor._facts

    def _monitor(self) -> LoopMonitor:
        training, setting = self._training, self._training.setting
        schedule = training.planned_lr if setting.shows_schedule else None
        return TrainingMonitor.for_model(
            training.model,
            training.optimizers,
            config=silent_config(),
            scaler=training.scaler,
            sinks=[self.recorder],
            warmup_steps=setting.schedule.warmup_steps,
            max_grad_norm=setting.max_grad_norm,
            tokens_per_step=setting.batch_size * setting.accumulation * setting.model.context_length,
            scheduled_lr=schedule,
            vocab_size=setting.vocab_size,
            precision=PRECISIONS.get(setting.precision, setting.precision),
            start_step=training.step,
        )

    def step(self, loss: Tensor, inputs_BT: Tensor, targets_BT: Tensor) -> None:
        """Between backward and clipping, as its documentation says."""
        if self._training.setting.shows_batch:
            self._loop.step(loss, inputs=inputs_BT, targets=targets_BT)
        else:
            self._loop.step(loss)

    def declare_change(self) -> None:
        """The user says that what follows is meant."""
        self._loop.declare_change()
        self.marks.append(Mark(self._training.step, "declared"))

    def resume(self, *, with_state: bool) -> None:
        """The training goes on in what stands for a new process: with a new monitor."""
        self._loop.close()
        self._training.step -= 1
        self._loop = self._monitor()
        self._training.step += 1
        self.marks.append(Mark(self._training.step, "resumed" if with_state else "resumed without state"))

    def close(self) -> None:
        self._loop.close()
