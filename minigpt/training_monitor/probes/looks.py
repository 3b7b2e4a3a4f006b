"""Closer looks on a slow beat, brought to the host without a wait."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from minigpt.training_monitor.armed_look import ArmedLook, arm
from minigpt.training_monitor.deferred_read import StepReads
from minigpt.training_monitor.forward_look import MeasuredLook
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.probes.forward_capture import is_traced
from minigpt.training_monitor.probes.own_hook import OwnHook


class LookReads:
    """Looks on their way from the device: `push` one at its step, `look_of` that step when its signals are read."""

    def __init__(self, late: bool | None = None) -> None:
        self._reads: StepReads[MeasuredLook] = StepReads(late)

    def push(self, step: int, measured: MeasuredLook) -> None:
        self._reads.push(step, measured, measured.vector)

    def look_of(self, step: int) -> Look | None:
        """The look taken at this step, if one was."""
        read = self._reads.of(step)
        return None if read is None else read[0].read(read[1])


class LoopLooks:
    """Looks at the first training forward of each due step of a loop that somebody else runs.

    Not where the model is compiled: hooks would have it compiled anew. A copy of the model is not watched.
    """

    def __init__(
        self, model: nn.Module, is_due: Callable[[int], bool] | None, late: bool | None = None
    ) -> None:
        """`is_due` is asked at each step (None: never look); `late`: see DeferredRead."""
        self._is_due, self._upcoming = is_due, 0
        self._armed: ArmedLook | None = None
        self._reads = LookReads(late)
        hook = _BeforeForward(self._before_forward)
        self._handle = model.register_forward_pre_hook(hook) if is_due else None

    def expect(self, step: int) -> None:
        """The next forwards belong to this step."""
        self._upcoming, self._armed = step, None

    def finish(self, step: int) -> None:
        """The step's forwards are over."""
        measured = self._armed.take() if self._armed is not None else None
        if measured is not None:
            self._reads.push(step, measured)
        self.expect(step + 1)

    def look_of(self, step: int) -> Look | None:
        """The look taken at this step, if one was."""
        return self._reads.look_of(step)

    def close(self) -> None:
        """Take the hook off the model."""
        if self._handle is not None:
            self._handle.remove()

    def _before_forward(self, module: nn.Module) -> None:
        if self._armed is None and self._is_due is not None and self._is_due(self._upcoming):
            self._armed = arm(module)


class _BeforeForward(OwnHook):
    def __init__(self, act: Callable[[nn.Module], None]) -> None:
        self._act = act

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not is_traced() and torch.is_grad_enabled():
            self._act(module)
