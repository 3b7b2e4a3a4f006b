"""Looks whether the model of anybody's loop sees the future, where that model is a causal language model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.training_monitor.causality import (
    IGNORED,
    NotJudgedError,
    influence_of_the_last,
    predicts_the_next,
    targets_of,
)
from minigpt.training_monitor.forward_look import logits_in
from minigpt.training_monitor.on_the_side import on_the_side
from minigpt.training_monitor.probes.forward_capture import as_trained
from minigpt.training_monitor.probes.kept_calls import KeptCall, with_tensors
from minigpt.training_monitor.untouched import tensors_in, unwrapped

MOST_TOKENS = 256
"""Of a sequence: a leak shows within so many, and a large vocabulary's logits are large."""

LISTENED_TO = 2
"""Sequences of a batch: they tell what the loss asks for."""

Pair = tuple[Tensor, Tensor | None]


class LoopCausality:
    """`hear` a forward's output when a look is due, and after its backward `measure`."""

    def __init__(self) -> None:
        self._heard: list[Pair] = []
        self._ids: Tensor | None = None

    def begin(self, ids: Tensor | None) -> None:
        """A forward with these ids begins, at a step whose model is to be looked at."""
        self._ids = ids

    def hear(self, output: Any) -> None:
        """Its output: the gradient that it will get says what the loss asks for. Only listened to, not changed."""
        ids, self._ids = self._ids, None
        logits = logits_in(output) if ids is not None else None
        if ids is None or logits is None or logits.grad_fn is None:
            return
        if logits.ndim != 3 or logits.shape[:2] != ids.shape:
            return

        def listen(gradient: Tensor) -> None:
            with suppress(Exception):  # this is within somebody's backward
                self._heard.append((ids[:LISTENED_TO], targets_of(gradient.detach()[:LISTENED_TO])))

        logits.register_hook(listen)  # type: ignore[no-untyped-call]

    def measure(self, call: KeptCall | None, given: Pair | None) -> Tensor | None:
        """See influence_of_the_last; NaN or None where it cannot be told, or the model is no causal language model.

        `given` are the inputs and targets that the loop itself told of.
        """
        heard, self._heard, self._ids = self._heard, [], None
        if call is None or not call.is_intact():
            return None
        try:
            return _measured(call, given, heard)
        except Exception:  # a stranger's model may refuse in any way: then this is not known
            return None


def _measured(call: KeptCall, given: Pair | None, heard: list[Pair]) -> Tensor | None:
    own = call.batch()
    if own is None or own[0].ndim != 2 or own[0].shape[1] < 3 or _has_memory(call):
        return None
    model, (ids_BT, targets_BT) = unwrapped(call.module), own
    trained_BT = as_trained(model, targets_BT)
    is_causal = _is_causal(ids_BT, given, (ids_BT, trained_BT), heard)
    if is_causal is None:
        return None
    asked_BT = None if trained_BT is None else trained_BT != IGNORED
    if heard and heard[0][1] is not None:
        asked_BT = heard[0][1] != IGNORED
    with on_the_side(model, call.given()), evaluating(model):
        influence = _influence(model, call, ids_BT, asked_BT)
    return torch.where(is_causal.to(influence.device), influence, torch.nan)


def _is_causal(ids: Tensor, given: Pair | None, own: Pair, heard: list[Pair]) -> Tensor | None:
    """Whether the loss asks for the next token: by what it asks of the logits, or else by the targets that were told.
    None: nobody knows."""
    told = given if given is not None and given[1] is not None else own
    declared = None
    if told[1] is not None and told[0].shape == told[1].shape and told[0].ndim == 2:
        declared = predicts_the_next(told[0], told[1]).to(ids.device)
    if not heard:
        return declared
    inputs, targets = heard[0]
    assert targets is not None
    asked = predicts_the_next(inputs, targets)
    if declared is None:
        return asked
    # A loss of another kind asks for nothing in this sense; a masked model's asks for little.
    enough = 2 * (targets != IGNORED).sum() >= targets.numel()
    return torch.where(enough, asked, declared.to(asked.device))


class _AmbiguousAxisError(NotJudgedError):
    """Time and vocabulary are of one length."""


def _influence(model: nn.Module, call: KeptCall, ids_BT: Tensor, asked_BT: Tensor | None) -> Tensor:
    """Of one sequence of the call."""
    B, T = ids_BT.shape
    arguments, named = call.given()
    others = [each for each in tensors_in((arguments, named)) if each.ndim > 0]
    simple = all(each.shape in ((B, T), (1, T)) for each in others)
    if B == T or (not simple and T > 4 * MOST_TOKENS):
        raise NotJudgedError("which axis is time cannot be told, or the sequences are long")
    row, unpadded = _row(named, ids_BT)
    enabled, dtype = call.autocast

    def logits_of(changed: Tensor) -> Tensor | None:
        length = changed.shape[1]

        def two_rows(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() == ids_BT.data_ptr() and tensor.shape == ids_BT.shape:
                return changed.to(call.device, tensor.dtype)
            if tensor.ndim and tensor.shape[0] == B:
                tensor = tensor.index_select(0, row.expand(2).to(tensor.device))
            return (tensor[:, :length] if simple and tensor.ndim else tensor).to(call.device)

        given, by_name = with_tensors((arguments, named), two_rows)
        with torch.autocast(call.device.type, dtype=dtype, enabled=enabled):
            logits = logits_in(model(*given, **by_name))
        if logits is not None and logits.shape[-1] == length:
            raise _AmbiguousAxisError
        return logits

    ids_T = ids_BT.index_select(0, row.reshape(1))[0, : MOST_TOKENS if simple else T]
    rows_T = None
    if asked_BT is not None and asked_BT.shape[1:] == (T,):
        rows_T = asked_BT.to(ids_BT.device).index_select(0, row.reshape(1))[0, : len(ids_T)]
    try:
        found = influence_of_the_last(logits_of, ids_T, ids_BT, rows_T)
    except _AmbiguousAxisError:
        if not simple:
            raise
        found = influence_of_the_last(logits_of, ids_T[:-1], ids_BT, None if rows_T is None else rows_T[:-1])
    return torch.where(unpadded.to(found.device), found, torch.nan)


def _row(named: Mapping[str, Any], ids_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The one of the sequences that were listened to which has the least padding, and whether it has none; 0-dim.

    What a model says at a padded place may depend on anything, and matters to nobody.
    """
    mask = named.get("attention_mask")
    if isinstance(mask, Tensor) and mask.shape == ids_BT.shape:
        counts = (mask[:LISTENED_TO] != 0).sum(1)
        return counts.argmax(), counts.max() == ids_BT.shape[1]
    zero = torch.zeros((), dtype=torch.int64, device=ids_BT.device)
    return zero, zero == 0


def _has_memory(call: KeptCall) -> bool:
    """Whether the call hands the model what came before, or is one of an encoder with a decoder."""
    config: Any = getattr(unwrapped(call.module), "config", None)
    both = getattr(config, "is_encoder_decoder", False) is True
    return both or any(
        call.named.get(name) is not None for name in ("past_key_values", "cache", "cache_params")
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and then each as it was."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
