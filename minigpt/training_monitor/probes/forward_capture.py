"""What a model's own calls tell, without being asked: the batch, and gradients left over from the step before."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from minigpt.training_monitor.probes.own_hook import OwnHook

TARGETS = ("labels", "targets", "target", "label", "y")
NOT_TOKENS = ("attention_mask", "token_type_ids", "position_ids", "cache_position", *TARGETS)

OnCall = Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], None]


class ForwardCapture:
    """Hooks on a model: `on_forward` and `on_call` at each training forward, and if the first said so, `on_backward`
    when the gradient of that forward's output is there, before the gradients of what lies below it. `on_output` is told
    the outputs, while `listen` wants it.

    Under torch.compile's tracing they do nothing. A copy of the model, by deepcopy or pickle, is not watched.
    """

    def __init__(
        self,
        model: nn.Module,
        on_forward: Callable[[], bool],
        on_call: OnCall,
        on_backward: Callable[[], None],
        on_output: Callable[[Any], None],
    ) -> None:
        outputs = self._outputs = _Outputs(on_backward, on_output)
        self._handles: list[RemovableHandle] = [
            model.register_forward_pre_hook(_Inputs(on_forward, on_call, outputs), with_kwargs=True),
            model.register_forward_hook(outputs),
        ]

    def listen(self, wanted: bool) -> None:
        """Whether `on_output` is told the outputs of the forwards to come."""
        self._outputs.listening = wanted

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def batch_in(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Tensor, Tensor | None] | None:
    """Token ids and their targets among a call's arguments: the first integer tensor, and one named as targets
    or the second of the first one's shape."""
    flat = list(_one_level(arguments)) + [
        (name, value) for key, entry in named.items() for name, value in _one_level_of(key, entry)
    ]
    ids = [(name, value) for name, value in flat if _is_tokens(value)]
    tokens = [value for name, value in ids if name not in NOT_TOKENS]
    if not tokens:
        return None
    targets = [value for name, value in ids if name in TARGETS]
    targets += [value for name, value in ids if name is None and value is not tokens[0]]
    return tokens[0], next((value for value in targets if value.shape == tokens[0].shape), None)


def _one_level(entries: Iterable[Any]) -> Iterable[tuple[str | None, Any]]:
    for entry in entries:
        yield from _one_level_of(None, entry)


def _one_level_of(name: str | None, entry: Any) -> Iterable[tuple[str | None, Any]]:
    if isinstance(entry, Mapping):
        yield from ((str(key), value) for key, value in entry.items())
    elif isinstance(entry, (list, tuple)):
        yield from ((name, value) for value in entry)
    else:
        yield name, entry


def _is_tokens(value: object) -> bool:
    """Integers of one or two dimensions, laid out as such: pictures have more."""
    if not isinstance(value, Tensor) or value.ndim not in (1, 2) or value.is_meta:
        return False
    if value.is_nested or value.layout is not torch.strided:
        return False
    return value.dtype in (torch.int64, torch.int32, torch.int16, torch.uint8)


def as_trained(module: nn.Module, targets: Tensor | None) -> Tensor | None:
    """The target of each input. Hugging Face's causal language models are given their inputs as labels, and shift
    them themselves: not shifted here, they would look like a label that leaks."""
    if targets is None or not type(module).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        return targets
    return nn.functional.pad(targets[..., 1:], (0, 1), value=-100)


class CallCapture:
    """Hooks on parts of a model that a loop may call by themselves: `on_call` at each of their training forwards."""

    def __init__(self, parts: Iterable[nn.Module], on_call: OnCall) -> None:
        hook = _Inputs(lambda: False, on_call, None)
        self._handles = [part.register_forward_pre_hook(hook, with_kwargs=True) for part in parts]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def is_traced() -> bool:
    """Whether this is no forward of the training, but torch.compile's tracing, or one of torch.func's transforms: its
    tensors have no memory of their own and live no longer than the call."""
    return torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None


class _Inputs(OwnHook):
    def __init__(self, on_forward: Callable[[], bool], on_call: OnCall, outputs: "_Outputs | None") -> None:
        self._on_forward, self._on_call, self._outputs = on_forward, on_call, outputs

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if is_traced() or not torch.is_grad_enabled():
            return
        with suppress(Exception):  # the call itself must not suffer from arguments of whatever kind
            if self._outputs is not None:
                self._outputs.wanted = self._on_forward()
            self._on_call(module, arguments, named)


class _Outputs(OwnHook):
    wanted = listening = False

    def __init__(self, on_backward: Callable[[], None], on_output: Callable[[Any], None]) -> None:
        self._on_backward, self._on_output = on_backward, on_output

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if is_traced():
            return
        with suppress(Exception):  # nor from what it returns
            self._hear(output)

    def _hear(self, output: Any) -> None:
        wanted, self.wanted = self.wanted, False
        if self.listening:
            self._on_output(output)
        if not wanted:
            return
        values = output if isinstance(output, Tensor) else getattr(output, "__dict__", None) or output
        for _, value in _one_level_of(None, values):
            if isinstance(value, Tensor) and value.grad_fn is not None:
                value.register_hook(self._begin)  # type: ignore[no-untyped-call]

    def _begin(self, gradient: Tensor) -> None:
        with suppress(Exception):  # this is within somebody's backward
            self._on_backward()
