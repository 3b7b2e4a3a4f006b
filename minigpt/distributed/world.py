"""The ranks of one run: one process alone, or those that torchrun started."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from minigpt.distributed.device import resolve_device
from minigpt.errors import LostRankError, OtherRankError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Who this process is among `size` ranks, and what they agree on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """`value` added up over the ranks, on every rank; alone, `value` itself."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """True on every rank if the flag is up on one of them."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag))).item())

    def gather(self, value: Any) -> list[Any]:
        """Each rank's value (plain data or tensors), in rank order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_main(self, value: Any) -> Any:
        """The main rank's value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def on_main(self, action: Callable[[], T]) -> T | None:
        """What `action` gives on the main rank, None on the others, which wait for it.

        Raises:
            OtherRankError: on the others, if the action failed, so that none waits for a rank that has left.
        """
        if self.size == 1:
            return action()
        if not self.is_main:
            if self.from_main(None):
                raise OtherRankError("the main rank could not go on; it has said why")
            return None
        try:
            result = action()
        except BaseException:
            # A rank that was interrupted meanwhile has left already.
            with suppress(RuntimeError):
                self.from_main(True)
            raise
        self.from_main(False)
        return result

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()


def ranks_from_environment() -> tuple[int, int, int]:
    """(rank, local rank, world size) as torchrun sets them; (0, 0, 1) without it."""
    return (
        int(os.environ.get("RANK", 0)),
        int(os.environ.get("LOCAL_RANK", 0)),
        int(os.environ.get("WORLD_SIZE", 1)),
    )


@contextmanager
def joined_world(device_name: str) -> Iterator[World]:
    """This process's World for as long as the block runs."""
    rank, local_rank, size = ranks_from_environment()
    device = resolve_device(device_name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size == 1:
        yield World(rank=0, size=1, device=device)
        return
    # Both backends: gradients travel over nccl, the few host-side decisions over gloo.
    # The default of half an hour is less than one rank may take to prepare a large corpus while the others wait;
    # a rank that died is torchrun's to notice.
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=1)
    )
    try:
        yield World(rank=rank, size=size, device=device)
    except RuntimeError as error:
        if not is_lost_connection(error):
            raise
        raise LostRankError(
            f"rank {rank} lost another rank (killed, out of memory, its machine?) and cannot go on alone; with "
            "--resume the run repeats the steps since the last checkpoint"
        ) from error
    finally:
        dist.destroy_process_group()


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether gloo says that the other end is gone (nccl says nothing: there torchrun ends the process)."""
    return "gloo/transport" in str(error)
