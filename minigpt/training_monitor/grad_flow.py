"""check_grad_flow: which parameters get a gradient, which a zero one, which none."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from minigpt.training_monitor.grad_flow_report import GradientRange, report


def check_grad_flow(
    model: nn.Module,
    loss: Tensor | None = None,
    verbose: bool = True,
    *,
    lang: Literal["en", "zh"] = "en",
    write: Callable[[str], None] = print,
) -> dict[str, list[str]]:
    """{"ok": [...], "zero": [...], "none": [...]}: every parameter's name, in exactly one list.

    With a loss whose backward has not run, runs it on the side: every `param.grad` stays as it was and the
    caller's own `backward()` still works. Without a loss, reads the gradients that a backward left. One with
    NaN or infinity counts as ok (there is a gradient) and is reported.

    Raises:
        ValueError: the loss is not a single number.
        RuntimeError: the loss's graph is gone (its backward has run) and no gradients are there to read.
    """
    if lang not in ("en", "zh"):
        raise ValueError(f"lang = {lang!r} must be 'en' or 'zh'")
    named = list(model.named_parameters())
    gradients, graph_gone = _gradients(named, loss)
    ranges = _ranges(gradients)
    lists: dict[str, list[str]] = {"ok": [], "zero": [], "none": []}
    for name, found in ranges.items():
        lists["none" if found is None else "ok" if found.largest != 0 else "zero"].append(name)
    if verbose:
        frozen = [name for name, parameter in named if not parameter.requires_grad]
        write(report(ranges, lists, frozen, loss, graph_gone, lang))
    return lists


def _gradients(
    named: list[tuple[str, nn.Parameter]], loss: Tensor | None
) -> tuple[dict[str, Tensor | None], bool]:
    """Each parameter's gradient, and whether the loss's graph was gone so that the ones at hand were read."""
    at_hand = {name: parameter.grad for name, parameter in named}
    if loss is None:
        return at_hand, False
    if loss.numel() != 1:
        raise ValueError(f"loss has shape {tuple(loss.shape)}; it must be one number: use loss.mean()")
    found: dict[str, Tensor | None] = dict.fromkeys(at_hand)
    trainable = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    if not trainable or not loss.requires_grad:
        return found, False
    try:
        sides = torch.autograd.grad(
            loss, [parameter for _, parameter in trainable], torch.ones_like(loss), True, allow_unused=True
        )
    except RuntimeError as error:
        return _after_failed_backward(error, at_hand)
    found.update(zip((name for name, _ in trainable), sides, strict=True))
    return found, False


def _after_failed_backward(
    error: RuntimeError, at_hand: dict[str, Tensor | None]
) -> tuple[dict[str, Tensor | None], bool]:
    """The gradients at hand when the graph was already used up; else the error, explained."""
    if "donated buffer" in str(error):
        raise RuntimeError(
            "this loss comes from a compiled model, whose graph cannot be kept for a second backward: run "
            "loss.backward() first and call check_grad_flow(model) without the loss"
        ) from error
    if "second time" not in str(error):
        raise error
    if all(gradient is None for gradient in at_hand.values()):
        raise RuntimeError(
            "backward has already run on this loss and its gradients are gone: call check_grad_flow(model, "
            "loss) before loss.backward(), or check_grad_flow(model) between backward and zero_grad"
        ) from error
    return at_hand, True


@torch.no_grad()
def _ranges(gradients: dict[str, Tensor | None]) -> dict[str, GradientRange | None]:
    """Largest and smallest |gradient| of each parameter, with one copy to the host a device."""
    ranges: dict[str, GradientRange | None] = dict.fromkeys(gradients)
    by_device: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for name, gradient in gradients.items():
        if gradient is None:
            continue
        values = gradient.coalesce().values() if gradient.is_sparse else gradient
        if values.numel() == 0:
            ranges[name] = GradientRange(0.0, 0.0)
            continue
        magnitudes = values.abs()
        smallest = torch.zeros_like(magnitudes.max()) if gradient.is_sparse else magnitudes.min()
        pair = torch.stack([magnitudes.max(), smallest]).double()
        by_device.setdefault(pair.device, []).append((name, pair))
    for pairs in by_device.values():
        table = torch.stack([pair for _, pair in pairs]).tolist()
        for (name, _), (largest, smallest) in zip(pairs, table, strict=True):
            ranges[name] = GradientRange(largest, smallest)
    return ranges
