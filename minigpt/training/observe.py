"""From a step's numbers on the device to signals, findings and sinks; on CUDA one step late, so that nothing waits."""

import sys
from dataclasses import dataclass

import torch

from minigpt.training.run import Run
from minigpt.training.step import StepResult
from minigpt.training_monitor.action import Action, Continue
from minigpt.training_monitor.deferred_read import DeferredRead
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True)
class _Step:
    """What the host knows of a finished step whose numbers may still be on their way from the device."""

    step: int
    lr: float
    seconds: float
    targets: int
    group_names: tuple[str, ...]
    tokens_seen: int
    window: int


class Observer:
    """Reads steps in order and hands each to the monitor and the sinks."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._reads: DeferredRead[_Step] = DeferredRead(run.world.device)

    def push(self, result: StepResult, lr: float, seconds: float, window: int) -> Action:
        """Take in the step just finished; the action for the newest step that could be read."""
        position = self._run.position
        step = _Step(
            position.step, lr, seconds, result.targets, result.group_names, position.tokens_seen, window
        )
        return self._observe(self._reads.push(step, result.numbers))

    def drain(self) -> Action:
        """Read what is left (before an evaluation, a checkpoint, the end)."""
        return self._observe(self._reads.drain())

    def _observe(self, read: tuple[_Step, list[float]] | None) -> Action:
        if read is None:
            return Continue()
        run = self._run
        signals = _signals(run, *read)
        # Every rank has the same reduced numbers, so every rank's monitor comes to the same action.
        observation = run.monitor.observe(signals)
        every = run.config.log_every_steps
        log = signals.step % every == 0 or signals.step in (1, run.config.max_steps)
        run.progress.step(signals)
        run.sinks.step(signals, log=log)
        for event in observation.events:
            run.sinks.event(event)
        return observation.action


def _signals(run: Run, step: _Step, numbers: list[float]) -> StepSignals:
    loss, called_off, scale, grad_norm, *group_norms = numbers
    tokens_per_second = step.targets / step.seconds
    max_grad_norm = run.config.max_grad_norm
    return StepSignals(
        step=step.step,
        loss=loss,
        grad_norm=grad_norm,
        lr=step.lr,
        group_norms=dict(zip(step.group_names, group_norms, strict=True)),
        clipped=max_grad_norm is not None and grad_norm > max_grad_norm,
        update_skipped=bool(called_off),
        scaler_scale=scale if run.scaler.is_enabled() else None,
        scaler_overflow=run.scaler.is_enabled() and bool(called_off),
        tokens=step.targets,
        tokens_seen=step.tokens_seen,
        seconds=step.seconds,
        tokens_per_second=tokens_per_second,
        mfu=run.flops_per_token * tokens_per_second / run.peak_flops if run.peak_flops else None,
        memory_bytes=_peak_memory_bytes(run.world.device),
        epoch=step.window // run.windows_per_epoch,
        position=step.window,
    )


def _peak_memory_bytes(device: torch.device) -> int | None:
    """The most memory held so far: of the GPU, or of this process (None on Windows, which does not tell)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
