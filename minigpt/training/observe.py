"""From a step's numbers on the device to signals, findings and sinks; on CUDA one step late, so that nothing waits."""

from collections import deque
from dataclasses import dataclass
from functools import partial
from math import isfinite

from minigpt.data.loader import StepBatches
from minigpt.training.causality import CausalityLooks
from minigpt.training.forensics import STEPS_KEPT, Forensics
from minigpt.training.forward_looks import ForwardLooks
from minigpt.training.run import Run
from minigpt.training.step import StepResult
from minigpt.training_monitor.action import Action, Continue, Stop
from minigpt.training_monitor.deferred_read import DeferredRead
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.probes.memory import peak_memory_bytes
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True)
class _Step:
    """What the host knows of a finished step whose numbers may still be on their way from the device."""

    step: int
    scheduled_lr: float
    seconds: float
    result: StepResult
    tokens_seen: int
    window: int


class Observer:
    """Reads steps in order and hands each to the monitor and the sinks."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._reads: DeferredRead[_Step] = DeferredRead(run.reads_late)
        self._forensics = Forensics(run)
        self._looks = ForwardLooks(run)
        self._causality = CausalityLooks(run)
        self._newest: deque[StepSignals] = deque(maxlen=STEPS_KEPT)

    def begin(self, batches: StepBatches) -> None:
        """Before a step: what it may have to be examined for afterwards."""
        self._forensics.begin(batches)
        self._looks.begin(batches)
        self._causality.begin(batches)

    def push(self, result: StepResult, lr: float, seconds: float, window: int) -> Action:
        """Take in the step just finished; the action for the newest step that could be read."""
        position = self._run.position
        self._forensics.end(result.numbers[1])
        step = _Step(position.step, lr, seconds, result, position.tokens_seen, window)
        return self._observe(self._reads.push(step, result.numbers))

    def drain(self) -> Action:
        """Read what is left (before an evaluation, a checkpoint, the end)."""
        return self._observe(self._reads.drain())

    def keep(self, stop: Stop) -> None:
        """A crash bundle of the step that ends the run; every rank is to call it."""
        for signals in self._newest:
            if signals.step == stop.step:
                self._forensics.keep_step(signals, stop.cause)
        for event in self._forensics.take_notes():
            self._run.sinks.event(event)

    def _observe(self, read: tuple[_Step, list[float]] | None) -> Action:
        if read is None:
            return Continue()
        run = self._run
        step, numbers = read
        look, influence = self._looks.look_of(step.step), self._causality.influence_of(step.step)
        signals = _signals(run, step, numbers, look, influence)
        self._newest.append(signals)
        # Norms and the loss are the same on every rank; time, memory and the batch are its own, and so may the action
        # be: nothing here may wait for another rank because of it (numbers that are not finite are everybody's).
        observation = run.monitor.observe(signals, partial(self._forensics.examine, signals))
        every = run.config.log_every_steps
        log = signals.step % every == 0 or signals.step in (1, run.config.max_steps)
        run.progress.step(signals)
        run.sinks.step(signals, log=log)
        for event in [*observation.events, *self._forensics.take_notes()]:
            run.sinks.event(event)
        return observation.action


def _signals(
    run: Run, step: _Step, numbers: list[float], look: Look | None, future_influence: float | None
) -> StepSignals:
    loss, called_off, scale, *measured, leftover = numbers
    result, model = step.result, step.result.measurement.read(measured)
    tokens_per_second = result.targets / step.seconds
    max_grad_norm = run.config.max_grad_norm
    return StepSignals(
        step=step.step,
        loss=loss,
        grad_norm=model.grad_norm,
        lr=result.lr,
        group_norms=model.group_norms,
        weight_norms=model.weight_norms,
        update_ratios=model.update_ratios,
        clipped=max_grad_norm is not None and model.grad_norm > max_grad_norm,
        update_skipped=bool(called_off),
        scaler_scale=scale if run.scaler.is_enabled() else None,
        # A finite norm was called off as a spike, and is no business of the scaler's.
        scaler_overflow=run.scaler.is_enabled() and bool(called_off) and not isfinite(model.grad_norm),
        tokens=result.targets,
        tokens_seen=step.tokens_seen,
        seconds=step.seconds,
        tokens_per_second=tokens_per_second,
        mfu=run.flops_per_token * tokens_per_second / run.peak_flops if run.peak_flops else None,
        memory_bytes=peak_memory_bytes(run.world.device),
        epoch=step.window // run.windows_per_epoch,
        position=step.window,
        scheduled_lr=step.scheduled_lr,
        leftover_grad_norm=leftover,
        optimizer_steps=model.optimizer_steps,
        parameters=model.parameters,
        batch=result.batch,
        look=look,
        future_influence=future_influence,
    )
