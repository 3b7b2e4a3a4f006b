"""What a training holds in memory, counted tensor by tensor: alike on any device, without an allocator's noise."""

from collections.abc import Callable

import torch
from torch import Tensor, UntypedStorage
from torch.autograd.graph import saved_tensors_hooks

from minigpt.lab.gradients import Pair
from minigpt.model.gpt import GPT
from minigpt.training.precision import Precision
from minigpt.training.run import Run


def saved_bytes(model: GPT, pair: Pair, precision: Precision) -> int:
    """Bytes that a forward pass of the sequences keeps for its backward pass: every storage once, the model's own
    (weights, tables) left out, what autocast made of the weights included."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # Held here as well, so that no later storage can get the address of one that is counted.
        kept.setdefault(storage.data_ptr(), storage)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), precision.autocast():
        model(*pair)
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own)


def state_bytes(run: Run) -> int:
    """Weights, a gradient for each, and what the optimizers remember (once they have made a step)."""
    weights = sum(parameter.nbytes for parameter in run.model.parameters())
    memory = (
        value
        for optimizer in run.optimizers
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )
    return 2 * weights + sum(value.nbytes for value in memory)


def largest_within(limit: int, bytes_of: Callable[[int], int], most: int) -> int:
    """The largest size up to `most` that takes at most `limit` bytes, 0 where 1 takes more; more never takes less."""
    fits, too_many = 0, most + 1
    while too_many - fits > 1:
        size = (fits + too_many) // 2
        fits, too_many = (size, too_many) if bytes_of(size) <= limit else (fits, size)
    return fits


def peak_of(device: torch.device) -> int | None:
    """The most that was allocated on a GPU since `forget_peak`; None elsewhere: a CPU's tensors are not counted."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def forget_peak(device: torch.device) -> None:
    """Begins to look for the most anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
