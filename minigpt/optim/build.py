"""The optimizers of a model: which parameter gets which, and a step that can be called off on the device."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from minigpt.optim.config import OptimizerConfig
from minigpt.optim.muon import Muon


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[Optimizer]:
    """The optimizers that together own every trainable parameter once; each group has its `lr_ratio`."""
    return BUILDERS[config.name](split_parameters(model), config)


def split_parameters(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters by kind: `matrix` (decayed), `token` (embeddings and head), `scale` (norms, gates)."""
    kinds: dict[str, list[nn.Parameter]] = {"matrix": [], "token": [], "scale": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            token = name in ("embedding.weight", "head.weight") or name.startswith("value_embeddings.")
            kinds["scale" if parameter.ndim < 2 else "token" if token else "matrix"].append(parameter)
    return kinds


def _adamw(kinds: dict[str, list[nn.Parameter]], config: OptimizerConfig) -> list[Optimizer]:
    ratio = config.embedding_learning_rate_ratio
    groups = [
        {"params": kinds["matrix"], "weight_decay": config.weight_decay, "lr_ratio": 1.0},
        {"params": kinds["token"], "weight_decay": 0.0, "lr_ratio": ratio},
        {"params": kinds["scale"], "weight_decay": 0.0, "lr_ratio": 1.0},
    ]
    # Fused: one pass over memory, and the only AdamW that can call an update off without asking the host.
    return [
        AdamW(
            [group for group in groups if group["params"]],
            lr=config.learning_rate,
            betas=config.betas,
            eps=config.eps,
            fused=True,
        )
    ]


def _muon(kinds: dict[str, list[nn.Parameter]], config: OptimizerConfig) -> list[Optimizer]:
    """Muon on the hidden matrices, AdamW elsewhere: updates alike in size, so one learning rate serves both."""
    muon = Muon(
        [{"params": kinds["matrix"], "lr_ratio": 1.0}],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
    )
    return [muon, *_adamw({**kinds, "matrix": []}, config)]


BUILDERS: dict[str, Callable[[dict[str, list[nn.Parameter]], OptimizerConfig], list[Optimizer]]] = {
    "adamw": _adamw,
    "muon": _muon,
}


def set_learning_rate(optimizers: Sequence[Optimizer], lr: float) -> None:
    """Give every group its share of `lr`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_ratio"]


def apply_update(optimizers: Sequence[Optimizer], call_off: Tensor) -> None:
    """Step every optimizer, unless `call_off` (0-dim fp32 on the device) is 1: then nothing changes.

    Fused AdamW reads the flag on the device and leaves parameters, moments and step count untouched (what GradScaler
    itself relies on; a test pins it), and so does our Muon. Multiplying an update by 0 would not do: 0 x NaN is NaN.
    Where an optimizer has no such switch, the host has to look.
    """
    for optimizer in optimizers:
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.grad_scale, optimizer.found_inf = None, call_off  # type: ignore[attr-defined]
            optimizer.step()
            del optimizer.grad_scale, optimizer.found_inf  # type: ignore[attr-defined]
        elif not call_off.item():
            optimizer.step()
