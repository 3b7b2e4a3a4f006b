"""Looks, seldom, whether the run's model sees the tokens that it should predict."""

# B batch, T time, V vocabulary

from math import isnan

import torch
from torch import Tensor

from minigpt.data.loader import StepBatches
from minigpt.training.compilation import uncompiled
from minigpt.training.run import Run
from minigpt.training_monitor.causality import NotJudgedError, influence_of_the_last
from minigpt.training_monitor.deferred_read import StepReads
from minigpt.training_monitor.probes.loop_causality import MOST_TOKENS, evaluating
from minigpt.training_monitor.untouched import untouched


class CausalityLooks:
    """`begin` each step with its batches, and ask for `influence_of` it when its signals have arrived.

    All ranks look, or none: the monitor's beat follows the loss, which is the same on each.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._reads: StepReads[None] = StepReads(run.reads_late)

    def begin(self, batches: StepBatches) -> None:
        """Before a step: look, if that is due."""
        step = self._run.position.step + 1
        if self._run.monitor.causality_is_due(step):
            self._reads.push(step, None, self._look(batches))

    def influence_of(self, step: int) -> float | None:
        """What was seen at this step; None: it was not looked."""
        read = self._reads.of(step)
        if read is None:
            return None
        (influence,) = read[1]
        return None if isnan(influence) else influence  # NaN: it could not be told

    @torch.no_grad()
    def _look(self, batches: StepBatches) -> Tensor:
        """At one sequence of the main rank's batch; (1,), the same on every rank."""
        run = self._run
        ids_BT = batches.micro_batches[0].inputs_BT.to(run.world.device, non_blocking=True)

        def logits_of(changed_BT: Tensor) -> Tensor:
            with run.precision.autocast():
                logits_BTV: Tensor = run.model(changed_BT)
            return logits_BTV

        with uncompiled(run.model), untouched(run.model), evaluating(run.model):
            try:
                influence = influence_of_the_last(logits_of, ids_BT[0, :MOST_TOKENS], ids_BT)
            except NotJudgedError:
                influence = torch.full((), torch.nan, device=run.world.device)
        if run.world.size > 1:
            influence = run.world.sum(influence if run.world.is_main else torch.zeros_like(influence))
        return influence.reshape(1)
