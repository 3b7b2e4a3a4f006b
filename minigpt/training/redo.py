"""A step's forward and backward once more, on the side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from minigpt.config.run_config import RunConfig
from minigpt.data.loader import Batch
from minigpt.errors import CheckpointError
from minigpt.generation.load import check_context
from minigpt.model.gpt import GPT
from minigpt.model.rotary import rotary_tables
from minigpt.model.saved_weights import check_weights
from minigpt.training.bundle import Bundle
from minigpt.training.precision import Precision
from minigpt.training_monitor.blame import Blame, blame
from minigpt.training_monitor.forward_look import measure_look
from minigpt.training_monitor.groups import parameter_groups_by_layer
from minigpt.training_monitor.untouched import untouched


def blame_step(
    model: GPT,
    batches: Sequence[Batch],
    rng: Mapping[str, Tensor],
    precision: Precision,
    *,
    scale: float,
) -> tuple[Blame, int]:
    """Who made the step's first NaN, and in which micro-batch: each is done again from the step's random state.

    `scale` is what the summed loss is multiplied with before its backward. Nothing of the run is changed.
    """
    device = model.embedding.weight.device
    last = Blame("not reproduced")
    with untouched(model):
        set_random_states(rng, device)
        for index, batch in enumerate(batches):
            inputs_BT, targets_BT = batch.inputs_BT.to(device), batch.targets_BT.to(device)

            def forward(inputs_BT: Tensor = inputs_BT, targets_BT: Tensor = targets_BT) -> Tensor:
                with precision.autocast():
                    return model(inputs_BT, targets_BT).total  # type: ignore[no-any-return]

            last = blame(model, forward, scale=scale)
            if last.found:
                return last, index
            _advance_random_states(forward)
    return last, 0


@torch.no_grad()
def _advance_random_states(forward: object) -> None:
    """The next micro-batch draws where this one ended."""
    assert callable(forward)
    forward()


def random_states(device: torch.device) -> dict[str, Tensor]:
    """What a forward draws from: torch's own state, and the GPU's (kept on the host, so this does not wait)."""
    states = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_states(rng: Mapping[str, Tensor], device: torch.device) -> None:
    """Put torch's generators where they were when the step began; a GPU's state is of no use on a CPU."""
    torch.set_rng_state(rng["torch"])
    if device.type == "cuda" and "cuda" in rng:
        torch.cuda.set_rng_state(rng["cuda"], device)
    if device.type == "mps" and "mps" in rng:
        torch.mps.set_rng_state(rng["mps"])


@dataclass(frozen=True)
class Replayed:
    """What one time through the step gave."""

    precision: str
    blame: Blame
    micro_batch: int
    loss: float
    grad_norms: dict[str, float]
    """Of each layer group."""
    activations: dict[str, tuple[float, float, float | None]]
    """RMS, largest, and largest attention logit of each block; over all micro-batches."""

    @property
    def finite(self) -> bool:
        return not self.blame.found and isfinite(self.loss)


def replayed(bundle: Bundle, model: GPT, precision: Precision) -> Replayed:
    """Once through the bundle's step in a number format; the model keeps the gradients."""
    device = model.embedding.weight.device
    targets = int(bundle.signals.get("tokens", 0)) or sum(
        int((batch.targets_BT >= 0).sum()) for batch in bundle.micro_batches
    )
    factor = bundle.world_size / targets
    scaling = float(bundle.signals.get("scaler_scale") or 1.0) if precision.name == "fp16" else 1.0
    found, micro = blame_step(model, bundle.micro_batches, bundle.rng, precision, scale=factor * scaling)
    activations = _activations(bundle, model, precision)
    set_random_states(bundle.rng, device)
    model.zero_grad(set_to_none=True)
    loss = 0.0
    for batch in bundle.micro_batches:
        with precision.autocast():
            sums = model(batch.inputs_BT.to(device), batch.targets_BT.to(device))
        (sums.total * factor * scaling).backward()
        loss += float(sums.cross_entropy)
    own_targets = sum(int((batch.targets_BT >= 0).sum()) for batch in bundle.micro_batches)
    norms = _grad_norms(model, scaling)
    return Replayed(precision.name, found, micro, loss / max(1, own_targets), norms, activations)


def _grad_norms(model: GPT, scaling: float) -> dict[str, float]:
    """Of this rank's own gradients."""
    named = [(name, each.grad) for name, each in model.named_parameters() if each.grad is not None]
    groups = parameter_groups_by_layer(name for name, _ in named)
    squares: dict[str, float] = {}
    for name, gradient in named:
        norm = float(gradient.double().norm()) / scaling
        squares[groups[name]] = squares.get(groups[name], 0.0) + norm * norm
    return {group: sqrt(square) for group, square in squares.items()}


def _activations(
    bundle: Bundle, model: GPT, precision: Precision
) -> dict[str, tuple[float, float, float | None]]:
    device = model.embedding.weight.device
    found: dict[str, tuple[float, float, float | None]] = {}
    set_random_states(bundle.rng, device)
    for batch in bundle.micro_batches:
        inputs_BT = batch.inputs_BT.to(device)

        def forward(inputs_BT: Tensor = inputs_BT) -> Tensor:
            with precision.autocast():
                return model(inputs_BT)  # type: ignore[no-any-return]

        measured = measure_look(model, forward)
        seen = measured.read(measured.vector.tolist())
        for layer, rms in seen.activation_rms.items():
            now = (rms, seen.activation_max[layer], seen.attention_logit_max.get(layer))
            found[layer] = now if layer not in found else _larger(found[layer], now)
    return found


def _larger(
    first: tuple[float, float, float | None], second: tuple[float, float, float | None]
) -> tuple[float, float, float | None]:
    """Entry by entry; NaN is the largest of all."""
    logits = None if first[2] is None or second[2] is None else _top(first[2], second[2])
    return _top(first[0], second[0]), _top(first[1], second[1]), logits


def _top(first: float, second: float) -> float:
    return first if first != first or first >= second else second


def model_of(bundle: Bundle, path: Path, device: torch.device) -> GPT:
    """The model in training mode with the step's weights."""
    try:
        config = RunConfig.model_validate(bundle.identity["config"])
        check_weights(config.model, bundle.weights, path)
        check_context(config, path)
        vocab_size = bundle.weights["embedding.weight"].shape[0]
        with torch.device("meta"):
            model = GPT(config.model, vocab_size)
        model.to_empty(device=device)
        model.load_state_dict(bundle.weights)
    except (KeyError, RuntimeError, ValidationError) as error:
        raise CheckpointError(
            f"{path} was not written by this version of MiniGPT: its model cannot be built"
        ) from error
    cos, sin = rotary_tables(config.model.head_dim, config.model.context_length, config.model.rope_theta)
    model.rotary_cos.copy_(cos)
    model.rotary_sin.copy_(sin)
    return model.train()
