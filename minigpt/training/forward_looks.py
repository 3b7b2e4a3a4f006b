"""Closer looks at the run's forward, on a slow beat and oftener on suspicion."""

# B batch, T time

from dataclasses import replace

import torch
from torch import Tensor

from minigpt.data.loader import StepBatches
from minigpt.training.compilation import uncompiled
from minigpt.training.run import Run
from minigpt.training_monitor.forward_look import MeasuredLook, measure_look
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.probes.looks import LookReads


class ForwardLooks:
    """`begin` each step with its batches, and ask for `look_of` it when its signals have arrived."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._reads = LookReads(run.reads_late)

    def begin(self, batches: StepBatches) -> None:
        """Before a step: look, if that is due."""
        step = self._run.position.step + 1
        if self._is_due(step):
            self._reads.push(step, self._look(batches))

    def look_of(self, step: int) -> Look | None:
        """The look taken at this step, if one was."""
        return self._reads.look_of(step)

    def _is_due(self, step: int) -> bool:
        """The main rank says so: what it suspects may be its own batch, and all ranks add to a look."""
        config = self._run.monitor.config
        beats = (config.look_every_steps, config.look_every_steps_on_suspicion)
        if not config.enabled or not any(beat and step % beat == 0 for beat in beats):
            return False
        return bool(self._run.world.from_main(self._run.monitor.look_is_due(step)))

    def _look(self, batches: StepBatches) -> MeasuredLook:
        """At one sequence of the main rank's batch: every rank's monitor must be told the same."""
        run = self._run
        inputs_BT = batches.micro_batches[0].inputs_BT[:1].to(run.world.device, non_blocking=True)

        def forward() -> Tensor:
            with run.precision.autocast():
                return run.model(inputs_BT)  # type: ignore[no-any-return]

        with uncompiled(run.model):
            measured = measure_look(run.model, forward)
        if run.world.size > 1:
            own = measured.vector if run.world.is_main else torch.zeros_like(measured.vector)
            measured = replace(measured, vector=run.world.sum(own))
        return measured
