"""What several processes agree on in somebody else's trainer, without any of them waiting for a GPU."""

import torch
from torch import Tensor
from torch import distributed as dist

from minigpt.training_monitor.deferred_read import DeferredRead
from minigpt.training_monitor.probes.upload import uploaded


class Agreement:
    """Over torch's default process group; every rank is to make the same calls."""

    def __init__(self, late: bool | None = None) -> None:
        """`late`: see DeferredRead."""
        self._reads: DeferredRead[None] = DeferredRead(late)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it is up on one of the ranks, told to all at the same call: this one, or on CUDA the next."""
        raised = uploaded([float(flag)], device)
        dist.all_reduce(raised, op=dist.ReduceOp.MAX)
        read = self._reads.push(None, raised)
        return read is not None and read[1][0] > 0


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of each rank's value, still on the device."""
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
