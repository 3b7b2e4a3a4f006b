"""Who made the first NaN or infinity: forward and backward are done again, watched call by call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from minigpt.training_monitor.backward_trace import BackwardTrace
from minigpt.training_monitor.forward_trace import Culprit, ForwardTrace
from minigpt.training_monitor.groups import plain_name
from minigpt.training_monitor.untouched import tensors_in, untouched, unwrapped

Phase = Literal["weights", "input", "forward", "loss", "backward", "not reproduced"]


@dataclass(frozen=True, slots=True)
class Blame:
    """The first non-finite value of a step, and what made it; "" and None where it does not apply."""

    phase: Phase
    """weights: some were NaN or infinite before; input: the model was fed them; forward, backward: a module made them
    of finite numbers; loss: the loss function did; not reproduced: done again, all is finite."""
    module: str = ""
    """Name within the model, without wrapper prefixes; "" is the model itself, or code outside of it."""
    kind: str = ""
    """Class of the module."""
    function: str = ""
    """The torch function or autograd node that made it."""
    parameter: str = ""
    """The parameter that holds it (weights), or whose gradient got it (backward)."""
    dtype: str = ""
    """Of the tensor that is not finite."""
    input_max: float | None = None
    """Largest |number| that went in: near 65504 in float16 means overflow."""
    non_finite: int = 0
    """Elements that are not finite."""
    total: int = 0
    """Elements of that tensor."""
    index: tuple[int, ...] = ()
    """Of the first of them."""
    shape: tuple[int, ...] = ()
    rows_hit: int = 0
    """Entries of the first dimension (sequences, mostly) with one of them: if it is all, the data is not special."""
    last_row: int = 0
    """The last of those entries; the first is index[0]."""
    note: str = ""

    @property
    def place(self) -> str:
        """`blocks.1.mlp.down`, with the function where that says more: `blocks.1.attention (softmax)`."""
        name = self.module or self.kind or "the loss"
        return f"{name} ({self.function})" if self.function and self.kind not in _OWN_FUNCTION else name

    @property
    def found(self) -> bool:
        return self.phase != "not reproduced"

    def as_data(self) -> dict[str, Any]:
        """Plain values by field name; `Blame(**data)` makes it back."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def as_evidence(self) -> dict[str, float | int | str | bool]:
        """It in the vocabulary of findings: the phase, and what else is known."""
        evidence: dict[str, float | int | str | bool] = {"phase": self.phase}
        named = {
            "module": self.place if self.found else "",
            "module_kind": self.kind,
            "function": self.function,
            "parameter": self.parameter,
            "dtype": self.dtype,
        }
        evidence |= {key: value for key, value in named.items() if value}
        if self.input_max is not None:
            evidence["module_input_max"] = self.input_max
        if self.total:
            evidence |= {"non_finite_count": self.non_finite, "of": self.total}
        return evidence

    def sentence(self) -> str:
        """What happened, in one English sentence without its full stop."""
        made = f"{self.non_finite:,} of {self.total:,} numbers ({self.dtype}) were NaN or infinite"
        fed = "" if self.input_max is None else f" from finite inputs of at most {self.input_max:.4g}"
        match self.phase:
            case "weights":
                return f"the weights of {self.parameter} were NaN or infinite already: {made}"
            case "input":
                return f"the model was fed NaN or infinity: {made}"
            case "forward" | "loss":
                return f"forward: {self.place} ({self.kind or 'outside of the model'}) was the first; {made}{fed}"
            case "backward":
                gradient = fed.replace("inputs", "gradients")
                return f"backward: the gradient became NaN or infinite in {self.place}; {made}{gradient}"
        return "done again, every number is finite" + (f" ({self.note})" if self.note else "")


_OWN_FUNCTION = frozenset({"Linear", "Embedding", "RMSNorm", "LayerNorm", "Conv1d", "Conv2d", "Softmax"})
"""Modules that are one function: naming it again says nothing."""


def blame(model: nn.Module, run_forward: Callable[[], object], *, scale: float = 1.0) -> Blame:
    """Who is to blame, by doing a step's forward, and if that is clean its backward, once more.

    `run_forward` gives the loss (a number that requires grad, or an object that holds one, such as `.loss`), in the
    autocast of the run; `scale` is the loss scaler's, for overflows of float16 in the backward. Set the random state
    of that step before, where there is dropout. Everything is left as it was, gradients too.
    """
    bare = unwrapped(model)
    held = _bad_weights(bare)
    if held is not None:
        return held
    with untouched(bare), torch.enable_grad():
        with ForwardTrace(bare, label_graph=True) as trace:
            output = run_forward()
        try:
            found = _of_forward(trace, output)
            loss = loss_in(output)
            if found is not None or loss is None:
                return found or Blame("not reproduced")
            return _of_backward(bare, trace, loss * scale)
        finally:
            trace.forget()


@torch.no_grad()
def blame_forward(model: nn.Module, run_forward: Callable[[], object]) -> Blame | None:
    """Who is to blame, if the model's output is not finite; None when it is."""
    bare = unwrapped(model)
    with untouched(bare), ForwardTrace(bare) as trace:
        output = run_forward()
    if all(bool(each.isfinite().all()) for each in tensors_in(output) if each.is_floating_point()):
        return None
    return _bad_weights(bare) or _of_forward(trace, output)


def _of_forward(trace: ForwardTrace, output: object) -> Blame | None:
    """A NaN that never reaches what the forward returns (a padded row, say) is nobody's fault."""
    returned = [tensor for tensor in tensors_in(output) if tensor.is_floating_point()]
    bad = next((tensor for tensor in returned if not bool(tensor.detach().isfinite().all())), None)
    if bad is None:
        return None
    if trace.fed is not None:
        return _blame("input", trace.fed)
    culprit = trace.source_of(bad)
    if culprit is None:
        return _blame("loss", Culprit.of(bad.detach(), note="no single call could be found"))
    is_loss = any(word in culprit.function for word in ("loss", "cross_entropy", "kl_div"))
    return _blame("loss" if is_loss or not culprit.inside else "forward", culprit)


def _of_backward(model: nn.Module, trace: ForwardTrace, loss: Tensor) -> Blame:
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    backward = BackwardTrace(trace.labels)
    try:
        with backward:
            gradients = torch.autograd.grad(loss, [parameter for _, parameter in named], allow_unused=True)
    except RuntimeError as error:
        (reason, *_) = str(error).strip().splitlines() or [type(error).__name__]
        return Blame("not reproduced", note=f"the backward could not be watched: {reason}")
    pairs = zip((plain_name(name) for name, _ in named), gradients, strict=True)
    bad = {
        name: gradient for name, gradient in pairs if gradient is not None and not gradient.isfinite().all()
    }
    if backward.culprit is not None:
        module = backward.culprit.module
        own = next((name for name in bad if module and name.startswith(f"{module}.")), "")
        return _blame("backward", backward.culprit, own)
    for name, gradient in bad.items():
        return _blame("backward", Culprit.of(gradient, note="a hook on the parameter"), name)
    largest = max(
        (float(each.abs().max()) for each in gradients if each is not None and each.numel()), default=0.0
    )
    return Blame("not reproduced", note=f"largest gradient {largest:.3g}")


def _bad_weights(model: nn.Module) -> Blame | None:
    """The first parameter, or buffer with NaN (infinity in a buffer may be a mask)."""
    named: list[tuple[str, Tensor]] = [*model.named_parameters()]
    for name, value in named:
        if value.is_floating_point() and not bool(value.detach().isfinite().all()):
            return _of_weights(model, name, value.detach())
    for name, value in model.named_buffers():
        if value.is_floating_point() and bool(value.isnan().any()):
            return _of_weights(model, name, value)
    return None


def _of_weights(model: nn.Module, name: str, value: Tensor) -> Blame:
    owner, _, _ = name.rpartition(".")
    kind = type(model.get_submodule(owner)).__name__
    return _blame(
        "weights", Culprit.of(value, module=plain_name(owner) if owner else "", kind=kind), plain_name(name)
    )


def _blame(phase: Phase, culprit: Culprit, parameter: str = "") -> Blame:
    return Blame(
        phase=phase,
        module=culprit.module,
        kind=culprit.kind,
        function=culprit.function,
        parameter=parameter,
        dtype=culprit.dtype,
        input_max=culprit.input_max,
        non_finite=culprit.non_finite,
        total=culprit.total,
        index=culprit.index,
        shape=culprit.shape,
        rows_hit=culprit.rows_hit,
        last_row=culprit.last_row,
        note=culprit.note,
    )


def loss_in(output: object) -> Tensor | None:
    """The number to differentiate: itself, `.loss`, `["loss"]`, or the first single number that requires grad."""
    named = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    candidates = [named] if isinstance(named, Tensor) else tensors_in(output)
    return next((each for each in candidates if each.numel() == 1 and each.requires_grad), None)
