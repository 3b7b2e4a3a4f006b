"""torch.compile, and the way back to eager where it cannot work or is not wanted."""

import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from minigpt.model.gpt import GPT
from minigpt.training.out_of_memory import shortage_of
from minigpt.training.precision import Precision


@contextmanager
def uncompiled(model: GPT) -> Iterator[None]:
    """The model eager while the block runs: evaluation and sampling would compile it anew for each mode and shape."""
    compiled = model._compiled_call_impl
    model._compiled_call_impl = None
    try:
        yield
    finally:
        model._compiled_call_impl = compiled


def compile_model(model: GPT, micro_batch_size: int, precision: Precision) -> tuple[float, str | None]:
    """Compile `model` in place by a dry run: the seconds it took, and None or why it does not work here.

    In place (`nn.Module.compile`), so parameter names keep their form. No random number is drawn and no gradient is
    left behind; where compiling fails (no C++ compiler, no Triton) the model stays eager. Too little memory is raised.
    """
    started_at = time.perf_counter()
    device = model.embedding.weight.device
    devices = [device] if device.type == "cuda" else []
    shape = (micro_batch_size, model.config.context_length)
    # Two tensors, as in every step: one for both would be compiled as such, and the first step would compile anew.
    inputs_BT, targets_BT = (torch.zeros(shape, dtype=torch.long, device=device) for _ in range(2))
    # The whole model in one graph and one shape: the loader never yields another. A CPU's kernels are made for a number
    # of threads; named, it is in the key of inductor's cache. Before torch 2.13 it was not by itself, and a cache that
    # was filled under other threads gave back the kernels made for those (pytorch/pytorch issue 167463).
    model.compile(dynamic=False, options={"cpp.threads": torch.get_num_threads()})
    try:
        with _cached_with_own_backwards(), torch.random.fork_rng(devices), warnings.catch_warnings():
            # torch's own tracing of an autograd Function warns of itself.
            warnings.filterwarnings("ignore", ".*should not be instantiated", DeprecationWarning)
            with precision.autocast():
                loss = model(inputs_BT, targets_BT).total
            loss.backward()
    except Exception as error:
        model._compiled_call_impl = None
        if shortage_of(error) is not None:
            raise
        return 0.0, (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    finally:
        model.zero_grad(set_to_none=True)
    return time.perf_counter() - started_at, None


def _cached_with_own_backwards() -> AbstractContextManager[Any]:
    """Has torch cache graphs with `autograd.Function`s too, which are else differentiated and partitioned every time.

    Off by default (torch 2.13). Their forward and backward are part of the graph, and so of the cache's key: another
    backward was not given the old one's code (tried).
    """
    from torch._functorch import config

    settings: Any = config
    name = "autograd_cache_allow_custom_autograd_functions"
    return settings.patch(name, True) if hasattr(settings, name) else nullcontext()
