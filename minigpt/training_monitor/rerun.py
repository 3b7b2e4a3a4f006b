"""At the first NaN or infinity in anybody's loop: the step's calls of the model are made again, on the side, to see
which module made it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor, nn

from minigpt.training_monitor.blame import Blame, blame, loss_in
from minigpt.training_monitor.event import Event
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.groups import plain_name
from minigpt.training_monitor.on_the_side import on_the_side
from minigpt.training_monitor.probes.kept_calls import KeptCall, StepCalls, with_tensors
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.untouched import tensors_in, unwrapped

NUMBERS = ("nan_loss", "non_finite_gradient", "overflow_streak", "scale_collapse")
"""Findings that are worth doing the step again."""
MOST_RERUNS = 5
"""In one process: each takes a few steps' time, and a run that is ill all the time need not be told more often."""
HEAD_TOKENS = 8

Found = dict[str, float | int | str | bool]


class Rerun:
    """`examine` a finding with the calls of its step; failing, it leaves a note and never an error."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._left = MOST_RERUNS
        self._told: dict[str, tuple[int, Evidence]] = {}
        """By finding: the step at which it was examined, and what was found: once an incident."""
        self._notes: list[Event] = []

    def examine(self, signals: StepSignals, step: StepCalls, finding: Finding) -> Evidence:
        """More evidence: who made the first number that is not finite, and of what."""
        if finding.name not in NUMBERS or finding.status not in ("suspected", "sustained"):
            return {}
        told_at, evidence = self._told.get(finding.name, (0, {}))
        if told_at and finding.opened_at <= told_at:
            return evidence
        if not step.calls or not self._left:
            return {}
        self._left -= 1
        try:
            evidence = self._evidence(signals, step)
        except (
            Exception
        ) as error:  # whatever a stranger's model does on the second go must not end its training
            (reason, *_) = str(error).strip().splitlines() or [type(error).__name__]
            text = f"the step could not be done again to find out where it began: {reason}"
            self._notes.append(Event(signals.step, "note", "rerun", text))
            evidence = {}
        self._told[finding.name] = (signals.step, evidence)
        return evidence

    def take_notes(self) -> list[Event]:
        """What else is to be recorded, once."""
        notes, self._notes = self._notes, []
        return notes

    def _evidence(self, signals: StepSignals, step: StepCalls) -> Evidence:
        if _is_poisoned(signals, step.calls[0].module):
            return {"rerun": "poisoned"}
        intact = [(index, call) for index, call in enumerate(step.calls) if call.is_intact()]
        scale = (signals.scaler_scale or 1.0) / max(step.made, 1)
        watched = True
        for index, call in intact:
            found = done_again(call, scale=scale, backward=isfinite(signals.loss))
            if found.found:
                return _evidence_of(self._by_full_name(found, call), call) | _place_in_step(index, step)
            watched = watched and not found.note.startswith("the backward could not")
        if len(intact) < step.made:
            return {"rerun": "incomplete"}
        if not isfinite(signals.loss):
            return {"rerun": "after_model"}
        return {"rerun": "backward_finite" if watched else "forward_finite"}

    def _by_full_name(self, found: Blame, call: KeptCall) -> Blame:
        """A part of the model knows its own modules by names that begin at itself."""
        names = (name for name, module in self._model.named_modules() if module is call.module)
        prefix = plain_name(next(names, ""))
        if not prefix:
            return found
        parameter = f"{prefix}.{found.parameter}" if found.parameter else ""
        return replace(found, module=f"{prefix}.{found.module}".rstrip("."), parameter=parameter)


def done_again(call: KeptCall, *, scale: float = 1.0, backward: bool = True) -> Blame:
    """Who made the first NaN or infinity of a call, in its forward or, where that is clean, in its backward.

    The backward starts at the loss that the model returns, times `scale`; where it returns none, at a number that all
    its outputs take part in (unless `backward` is false). Nothing of the training is changed.
    """
    bare = unwrapped(call.module)
    arguments, named = call.given()
    if bare is not call.module:  # DistributedDataParallel brings what it is given to the model's device
        arguments, named = with_tensors((arguments, named), lambda tensor: tensor.to(call.device))
    enabled, dtype = call.autocast

    def forward() -> object:
        call.set_random_states()
        with torch.autocast(call.device.type, dtype=dtype, enabled=enabled):
            output: object = bare(*arguments, **named)
        if not backward or loss_in(output) is not None:
            return output
        return {"output": output, "loss": _stand_in(output)}

    with on_the_side(bare, (arguments, named)), _in_mode(bare, call.training):
        return blame(bare, forward, scale=scale)


def _stand_in(output: object) -> Tensor | None:
    """A number whose gradient reaches all outputs, finite if they are, and no constant along any dimension."""
    parts = [each for each in tensors_in(output) if each.requires_grad and each.is_floating_point()]
    waves = [torch.arange(each.numel(), device=each.device).cos().view(each.shape) for each in parts]
    sums = [(each.float() * wave).sum() / each.numel() for each, wave in zip(parts, waves, strict=True)]
    return torch.stack(sums).sum() if sums else None


@contextmanager
def _in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """A step that is judged late may be judged within an evaluation."""
    if model.training is training:
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _is_poisoned(signals: StepSignals, model: nn.Module) -> bool:
    """Whether weights that were finite in the step are not any more: its update has reached them since (where a
    step's numbers are read one step late)."""
    parameters = signals.parameters
    if parameters is None or parameters.weight_norms is None:
        return False
    if not all(isfinite(norm) for norm in parameters.weight_norms):
        return False
    return any(
        not bool(parameter.detach().isfinite().all())
        for parameter in unwrapped(model).parameters()
        if parameter.is_floating_point()
    )


def _evidence_of(found: Blame, call: KeptCall) -> Found:
    """The blame in the vocabulary of findings, and the sequence that it came from."""
    return found.as_evidence() | ({} if found.phase == "weights" else _row(found, call))


def _row(found: Blame, call: KeptCall) -> Found:
    """The sequence that is to blame, where a single one is, and the ids that it begins with."""
    batch = call.batch()
    if batch is None or batch[0].ndim != 2 or not found.index:
        return {}
    B, T = batch[0].shape  # batch, time
    first, last = found.index[0], found.last_row
    if found.shape[0] == B * T:
        first, last = first // T, last // T
    elif found.shape[0] != B:
        return {}
    if first != last or B == 1:
        return {}
    head = batch[0][first, :HEAD_TOKENS].tolist()
    return {"row": first, "rows": B, "token_head": " ".join(str(token) for token in head)}


def _place_in_step(index: int, step: StepCalls) -> Found:
    if step.made == 1:
        return {}
    return {"micro_batch": step.made - len(step.calls) + index + 1, "micro_batches": step.made}
