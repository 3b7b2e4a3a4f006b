"""Gradients of a saved model on a fixed batch of its own validation text."""

# B batch, T time

from collections.abc import Mapping
from pathlib import Path

import torch

from minigpt.data.windows import Windows
from minigpt.errors import MiniGPTError
from minigpt.evaluation.saved import corpus_of
from minigpt.generation.load import load_model
from minigpt.lab.gradients import loss_and_gradient
from minigpt.lab.layers.measure import norm_of

WINDOWS = 8
"""Of the validation split, as far apart as they can be: one text may be an odd one. The same for every checkpoint of a
run, so that two can be compared."""


def gradient_norms(checkpoint: Path, device: torch.device) -> tuple[Mapping[str, float], float]:
    """Norm by parameter, and the batch's mean loss in nats a token; fp32, without dropout or clipping.

    Raises:
        MiniGPTError: model, tokenizer or corpus of the checkpoint cannot be had.
    """
    loaded = load_model(checkpoint, device)
    model = loaded.model
    try:
        prepared = corpus_of(loaded, loaded.config.data, progress=False)
    except OSError as error:
        raise MiniGPTError(f"its corpus cannot be read: {error.strerror or error}") from error
    windows = Windows(prepared.validation, loaded.config.model.context_length)
    inputs_BT, targets_BT = windows.stacked(spread(len(windows)))
    loss, gradient = loss_and_gradient(model, [(inputs_BT.to(device), targets_BT.to(device))])
    return {name: norm_of(one) for name, one in gradient.items()}, loss


def spread(count: int) -> list[int]:
    """WINDOWS of `count` windows, or all of fewer, as far apart as they can be; the first among them."""
    some = min(WINDOWS, count)
    return [number * count // some for number in range(some)]
