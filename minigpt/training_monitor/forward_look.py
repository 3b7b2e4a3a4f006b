"""A closer look at one forward pass: activations, attention logits, dead units, output logits."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from minigpt.training_monitor.attention_logits import largest_logit
from minigpt.training_monitor.groups import parameter_groups_by_layer, plain_name
from minigpt.training_monitor.hooked_mode import HookedMode
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.untouched import tensors_in, untouched, unwrapped

DEAD_BELOW = 1e-6
"""Of the layer's RMS: a unit that never gets above it on any token is dead."""
LOGITS_READ = 1 << 21
"""At most so many output logits are looked at: the leading positions of a large batch stand for all."""
OUTPUT = "output"


def look(model: nn.Module, run_forward: Callable[[], object]) -> Look:
    """The Look at one forward, which `run_forward` makes: `lambda: unwrapped(model)(inputs)`, in its own autocast.

    No gradient is recorded and nothing stays behind: random states, buffers, gradients and modes are as before.
    Attention logits are seen where the model calls F.scaled_dot_product_attention (also inside
    nn.MultiheadAttention); for attention worked out by hand or in foreign kernels that mapping is empty.
    """
    measured = measure_look(model, run_forward)
    found = measured.read(measured.vector.tolist())
    if found.first_non_finite is None:
        return found
    from minigpt.training_monitor.blame import blame_forward

    blamed = blame_forward(model, run_forward)
    return found if blamed is None else _renamed(found, blamed.place)


@dataclass(frozen=True, slots=True)
class MeasuredLook:
    """A look whose numbers are still on the device: one copy brings all of them."""

    tags: tuple[tuple[str, str], ...]
    """(field of Look, layer group) of each number."""
    vector: Tensor
    """fp32, one number a tag."""

    def read(self, values: Sequence[float]) -> Look:
        """The Look from the vector's values; the first block with NaN or infinity stands for the first module."""
        fields: dict[str, Any] = {}
        first_bad = None
        for (name, group), value in zip(self.tags, values, strict=True):
            bad = not isfinite(value) and value != -inf and name != "attention_logit_max"
            first_bad = group if bad and first_bad is None else first_bad
            if group == OUTPUT and name in ("output_logit_rms", "output_logit_max", "log_partition"):
                fields[name] = value
            elif value != -inf:
                fields.setdefault(name, {})[group] = value
        return Look(**fields, first_non_finite=first_bad)


@torch.no_grad()
def measure_look(model: nn.Module, run_forward: Callable[[], object]) -> MeasuredLook:
    """As `look`, without waiting for the device."""
    with untouched(model), ForwardWatch(model) as watch:
        output = run_forward()
    watch.note_output(output)
    return watch.measured()


class ForwardWatch(HookedMode):
    """While entered, measures every forward of the model's blocks; leaves no hook behind."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = unwrapped(model)
        self._numbers: dict[tuple[str, str], Tensor] = {}
        self._inside: list[str] = []
        self._narrowing: dict[str, Tensor] = {}
        self._fed: dict[str, Tensor] = {}
        self._logits: Tensor | None = None

    def _hook(self) -> Iterator[RemovableHandle]:
        for name, block in _blocks(self._model).items():
            yield block.register_forward_pre_hook(partial(self._before_block, name))
            yield block.register_forward_hook(partial(self._after_block, name))
            for module in block.modules():
                if _is_projection(module):
                    yield module.register_forward_hook(partial(self._after_projection, name))

    def _leave(self) -> None:
        self._inside = []
        self._narrowing, self._fed = {}, {}

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self._note_attention(*args, **kwargs)
        elif func is F.multi_head_attention_forward:
            return self._multi_head(args, kwargs)
        elif func is F.cross_entropy:
            logits = args[0] if args else kwargs["input"]
            self._logits = logits.detach().movedim(1, -1) if logits.ndim > 2 else logits.detach()
        return func(*args, **kwargs)

    def _multi_head(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """nn.MultiheadAttention's function asks for modes itself, so inside it none would see the attention."""
        attention = F.scaled_dot_product_attention

        def watched(*inner: Any, **named: Any) -> Tensor:
            self._note_attention(*inner, **named)
            return attention(*inner, **named)

        F.scaled_dot_product_attention = watched
        try:
            return F.multi_head_attention_forward(*args, **kwargs)
        finally:
            F.scaled_dot_product_attention = attention

    def _note_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        layer = self._inside[-1] if self._inside else "attention"
        with _unmeasured_is_missing():
            self._note("attention_logit_max", layer, largest_logit(query, key, attn_mask, is_causal, scale))

    def _before_block(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._inside.append(name)

    @torch.no_grad()
    def _after_block(self, name: str, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        self._inside.pop()
        fed = self._narrowing.pop(name, None)
        fed = self._fed.pop(name, None) if fed is None else fed
        with _unmeasured_is_missing():
            stream = next((tensor for tensor in tensors_in(output) if tensor.is_floating_point()), None)
            if stream is not None and stream.numel():
                self._note("activation_rms", name, _rms(stream))
                self._note("activation_max", name, _largest(stream))
        if fed is None or not fed.numel():
            return
        with _unmeasured_is_missing():
            reached = fed.flatten(0, -2).abs().amax(0).float()
            self._note("dead_unit_fraction", name, (reached <= DEAD_BELOW * _rms(fed)).float().mean())

    def _after_projection(self, name: str, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """The last one that narrows is the feed-forward's way down; without any, the last one of all."""
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor) and args[0].ndim > 1:
            narrows = args[0].shape[-1] > output.shape[-1]
            (self._narrowing if narrows else self._fed)[name] = args[0].detach()

    def _note(self, field: str, group: str, number: Tensor) -> None:
        """A block that runs twice shows the larger number."""
        earlier = self._numbers.get((field, group))
        number = number.detach().float()
        self._numbers[field, group] = number if earlier is None else torch.maximum(earlier, number)

    @torch.no_grad()
    def note_output(self, output: object) -> None:
        """The output logits: what cross_entropy was given during the forward, else what the model returned."""
        with _unmeasured_is_missing():
            logits = self._logits if self._logits is not None else logits_in(output)
            if logits is None or logits.shape[-1] < 2 or not logits.numel():
                return
            rows = logits.detach().flatten(0, -2)[: max(1, LOGITS_READ // logits.shape[-1])].float()
            self._note("output_logit_rms", OUTPUT, _rms(rows))
            self._note("output_logit_max", OUTPUT, _largest(rows))
            self._note("log_partition", OUTPUT, rows.logsumexp(-1).mean())

    def measured(self) -> MeasuredLook:
        """All that was seen, in order of execution."""
        found = self._numbers.values()
        # Of a model on several devices, an accelerator's: from there to the host somebody would wait.
        devices = [number.device for number in found] + [torch.device("cpu")]
        device = next((each for each in devices if each.type != "cpu"), devices[0])
        numbers = [number.to(device, non_blocking=True) for number in found]
        vector = torch.stack(numbers) if numbers else torch.zeros(0)
        return MeasuredLook(tuple(self._numbers), vector)


def _blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The numbered layers, in model order; a model without any: its other layer groups."""
    groups = dict.fromkeys(parameter_groups_by_layer(name for name, _ in model.named_parameters()).values())
    modules = {plain_name(name): module for name, module in model.named_modules()}
    found = {group: modules[group] for group in groups if group in modules}
    return {name: block for name, block in found.items() if name.split(".")[-1].isdigit()} or found


def _is_projection(module: nn.Module) -> bool:
    """A matrix product as a module: torch's, quantized ones, and Conv1D, as GPT-2's authors call theirs."""
    return isinstance(module, nn.Linear) or type(module).__name__.endswith(("Linear", "Conv1D"))


def logits_in(output: object) -> Tensor | None:
    """The logits in what a model returns: a tensor, `.logits`, or the first of a tuple that is no single number."""
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    # An output object without logits holds hidden states.
    candidates = (
        [named] if named is not None else tensors_in(output) if isinstance(output, (Tensor, tuple)) else []
    )
    return next((each for each in candidates if each.ndim >= 2 and each.is_floating_point()), None)


def _rms(values: Tensor) -> Tensor:
    return values.detach().float().square().mean().sqrt()


def _largest(values: Tensor) -> Tensor:
    return values.detach().abs().amax().float()


def _unmeasured_is_missing() -> AbstractContextManager[None]:
    """Whatever cannot be measured (nested tensors, a layout of its own, no memory left) is missing from the look:
    somebody's training must not end over it."""
    return suppress(Exception)


def _renamed(found: Look, first: str) -> Look:
    return replace(found, first_non_finite=first)
