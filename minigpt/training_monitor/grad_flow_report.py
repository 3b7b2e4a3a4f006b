"""The printed form of check_grad_flow."""

from math import isfinite
from typing import NamedTuple

from torch import Tensor

RULE = "=" * 60
THIN_RULE = "-" * 60

TEXTS = {
    "en": {
        "start": "➡️ [Check started] How gradients flow in the backward pass...",
        "ok": "✅ Parameters with a gradient: {count}",
        "zero": "⚠️ Parameters with zero gradient: {count}",
        "none": "❌ Parameters with grad is None: {count}",
        "frozen": "ℹ️ requires_grad=False: {names}",
        "non_finite": "❌ NaN or infinity in the gradient of: {names}",
        "empty": "ℹ️ The model has no parameters.",
        "graph_gone": "ℹ️ backward had already run on this loss: these gradients were read from param.grad",
        "no_backward": "❌ No parameter has a gradient: no backward has run since the last zero_grad",
        "disconnected": "❌ The loss is not connected to any parameter: loss.requires_grad={requires_grad}, "
        "loss.grad_fn={grad_fn}",
        "detached": "   (detach(), .item(), torch.no_grad() or a new tensor(...) between model and loss)",
        "other_graph": "   (the loss has a graph, but no trainable parameter of this model is in it)",
        "all_frozen": "   (every parameter has requires_grad=False)",
    },
    "zh": {
        "start": "➡️ [检查开始] 反向传播中梯度传导情况...",
        "ok": "✅ 有效梯度参数数：{count}",
        "zero": "⚠️ 梯度为0的参数数：{count}",
        "none": "❌ grad is None 的参数数：{count}",
        "frozen": "ℹ️ requires_grad=False 的参数：{names}",
        "non_finite": "❌ 梯度含 NaN 或无穷的参数：{names}",
        "empty": "ℹ️ 模型没有参数。",
        "graph_gone": "ℹ️ 该损失已执行过 backward：以上为 param.grad 中现有的梯度",
        "no_backward": "❌ 所有参数都没有梯度：上次 zero_grad 之后尚未执行 backward",
        "disconnected": "❌ 损失与模型参数没有连接：loss.requires_grad={requires_grad}，"
        "loss.grad_fn={grad_fn}",
        "detached": "   （模型与损失之间有 detach()、.item()、torch.no_grad() 或新建的 tensor(...)）",
        "other_graph": "   （损失有计算图，但其中没有本模型需要梯度的参数）",
        "all_frozen": "   （所有参数的 requires_grad 均为 False）",
    },
}


class GradientRange(NamedTuple):
    """Largest and smallest |gradient| of one parameter."""

    largest: float
    smallest: float


def report(
    ranges: dict[str, GradientRange | None],
    lists: dict[str, list[str]],
    frozen: list[str],
    loss: Tensor | None,
    graph_gone: bool,
    lang: str,
) -> str:
    """The framed table, then notes on what needs explaining."""
    texts = TEXTS[lang]
    lines = [RULE, texts["start"]]
    lines += [_line(name, found) for name, found in ranges.items()]
    lines.append(THIN_RULE)
    lines += [texts[kind].format(count=len(lists[kind])) for kind in ("ok", "zero", "none")]
    lines.append(RULE)
    non_finite = [name for name, found in ranges.items() if found and not isfinite(found.largest)]
    if non_finite:
        lines.append(texts["non_finite"].format(names=", ".join(non_finite)))
    if frozen:
        lines.append(texts["frozen"].format(names=", ".join(frozen)))
    if graph_gone:
        lines.append(texts["graph_gone"])
    if not ranges:
        lines.append(texts["empty"])
    elif len(lists["none"]) == len(ranges):
        lines += _why_all_none(len(frozen) == len(ranges), loss, texts)
    return "\n".join(lines)


def _line(name: str, found: GradientRange | None) -> str:
    if found is None:
        return f"[❌ NONE ] {name}: grad is None"
    if found.largest == 0:
        return f"[⚠️ ZERO] {name}: grad == 0"
    return f"[✅ OK  ] {name}: grad max={found.largest:.4e}, min={found.smallest:.4e}"


def _why_all_none(all_frozen: bool, loss: Tensor | None, texts: dict[str, str]) -> list[str]:
    if loss is None:
        return [texts["no_backward"], *([texts["all_frozen"]] if all_frozen else [])]
    grad_fn = type(loss.grad_fn).__name__ if loss.grad_fn is not None else None
    reason = "all_frozen" if all_frozen else "other_graph" if loss.requires_grad else "detached"
    headline = texts["disconnected"].format(requires_grad=loss.requires_grad, grad_fn=grad_fn)
    return [headline, texts[reason]]
