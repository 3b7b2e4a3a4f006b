"""Loss, perplexity and bits per byte over held-out batches."""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt.data.loader import Batch
from minigpt.errors import MiniGPTError
from minigpt.model.loss import IGNORE_INDEX


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text; every token counts the same."""

    loss: float
    """Cross-entropy in nats a token."""
    perplexity: float
    """exp(loss)."""
    bits_per_byte: float
    """Cross-entropy in bits a byte of text: comparable between tokenizers, unlike the other two."""
    tokens: int
    """Tokens predicted, over all ranks."""
    bytes: int
    """Bytes of text those tokens stand for."""


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch | None],
    *,
    bytes_per_token: float,
    autocast: Callable[[], AbstractContextManager[object]],
    device: torch.device,
    reduce_sum: Callable[[Tensor], Tensor],
    should_stop: Callable[[], bool],
) -> Evaluation | None:
    """The evaluation over all ranks' `batches`, or None on every rank if one was told to stop, or has a None among its
    batches: they could not all be read.

    `reduce_sum` sums a small tensor over ranks (the identity for one process) and is called exactly once, so
    ranks may hold different numbers of batches and may be told to stop at different moments. `model` is the
    bare module or its compiled form: a wrapper that talks to other ranks in forward would wait for the rank
    that stopped. Draws nothing from any random generator; the model's training flag is left as found.

    Raises:
        MiniGPTError: the batches hold no token to predict.
    """
    was_training = model.training
    model.eval()
    losses: list[Tensor] = []
    tokens: list[Tensor] = []
    stopped = False
    try:
        # Not inference_mode: a compiled model would be compiled once more for it, and its tensors could not
        # meet autograd.
        with torch.no_grad():
            for batch in batches:
                stopped = batch is None or should_stop()
                if batch is None or stopped:
                    break
                targets_BT = batch.targets_BT.to(device, non_blocking=True)
                with autocast():
                    sums = model(batch.inputs_BT.to(device, non_blocking=True), targets_BT)
                # Kept on the device until the end: nothing waits for the host between batches. clone: a
                # compiled model in CUDA-graph mode writes the next batch's loss into the same memory.
                losses.append(sums.cross_entropy.clone())
                tokens.append((targets_BT != IGNORE_INDEX).sum())
    finally:
        model.train(was_training)
    totals = torch.tensor([_total(losses), _total(tokens), float(stopped)], dtype=torch.float64)
    # MPS has no fp64; a token count is exact in fp32 up to 2^24.
    totals = reduce_sum(totals.to(device, torch.float32 if device.type == "mps" else torch.float64))
    total_nats, total_tokens, any_stopped = totals.tolist()
    if any_stopped:
        return None
    if not total_tokens:
        raise MiniGPTError("the validation batches hold no token to predict; raise data.validation_fraction")
    return _evaluation(total_nats, int(total_tokens), bytes_per_token)


def _total(values: list[Tensor]) -> float:
    return float(torch.stack(values).cpu().double().sum()) if values else 0.0


def _evaluation(total_nats: float, tokens: int, bytes_per_token: float) -> Evaluation:
    loss = total_nats / tokens
    text_bytes = tokens * bytes_per_token
    return Evaluation(
        loss=loss,
        # math.exp raises above 709 and lets NaN through.
        perplexity=math.inf if loss > 700.0 else math.exp(loss),
        bits_per_byte=total_nats / math.log(2.0) / text_bytes,
        tokens=tokens,
        bytes=round(text_bytes),
    )
