"""What a training step really holds at its fullest moment: every tensor that an operator made, while it lives."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minigpt.model.gpt import GPT
from minigpt.planning.workload import Workload


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that come into being inside, and the most of them at a time."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self._live: dict[int, tuple[Any, int]] = {}
        self.most: int = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operator(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.untyped_storage().data_ptr() not in self._known:
                storage = value.untyped_storage()
                alive: Any = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._live[storage.data_ptr()] = (alive, storage.nbytes())
        self._live = {key: held for key, held in self._live.items() if not held[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._live.values()))
        return result


def live_bytes(work: Workload) -> int:
    """The most bytes in tensors beside weights and moments, in two micro-batches (one, where none is accumulated)."""
    model = GPT(work.model, work.vocab_size).train()
    model.recompute_blocks = work.recompute
    ids_BT = torch.zeros(work.micro_batch_size, work.model.context_length, dtype=torch.int64)
    with LiveBytes([*model.parameters(), *model.buffers()]) as counted:
        for _ in range(2 if work.accumulates else 1):
            context: AbstractContextManager[object] = nullcontext()
            if work.precision != "off":
                context = torch.autocast("cpu", dtype=torch.bfloat16)
            with context:
                loss = model(ids_BT, ids_BT).total
            loss.backward()
            del loss
    return int(counted.most)
