"""Gradients of a saved model on a fixed batch of its own validation text."""

from collections.abc import Mapping
from pathlib import Path

import torch

from minigpt.data.loader import validation_batches
from minigpt.data.windows import Windows
from minigpt.errors import MiniGPTError
from minigpt.evaluation.saved import corpus_of
from minigpt.generation.load import load_model
from minigpt.lab.gradients import loss_and_gradient
from minigpt.lab.layers.measure import norm_of

WINDOWS = 8
"""Of the validation split, its first: the same for every checkpoint of a run, so that two can be compared."""


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
    batch = next(validation_batches(windows, min(WINDOWS, len(windows)), None))
    loss, gradient = loss_and_gradient(model, [(batch.inputs_BT.to(device), batch.targets_BT.to(device))])
    return {name: norm_of(one) for name, one in gradient.items()}, loss
