"""Gradients of a saved model on a fixed batch of its own validation text."""

from collections.abc import Mapping
from pathlib import Path

import torch

from minigpt.data.loader import validation_batches
from minigpt.data.windows import Windows
from minigpt.errors import MiniGPTError
from minigpt.evaluation.saved import corpus_of
from minigpt.generation.load import load_model
from minigpt.lab.layers.measure import norm_of
from minigpt.model.loss import IGNORE_INDEX

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
    targets_BT = batch.targets_BT.to(device)
    sums = model(batch.inputs_BT.to(device), targets_BT)
    loss = sums.total / (targets_BT != IGNORE_INDEX).sum()
    loss.backward()
    norms = {
        name: norm_of(parameter.grad)
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return norms, float(loss.detach())
