"""Out of memory: what was wanted, which setting fits, and with `micro_batch_size: auto` a smaller micro-batch."""

import gc
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from minigpt.errors import OutOfMemoryError
from minigpt.planning.available import available_bytes
from minigpt.planning.memory import memory_report
from minigpt.planning.plan import bytes_text
from minigpt.planning.workload import Workload
from minigpt.training.redo import random_states, set_random_states
from minigpt.training.run import Run
from minigpt.training_monitor.event import Event

Result = TypeVar("Result")

_SAYINGS = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    # oneDNN, where its scratch memory is refused
    "could not create a primitive",
    "could not create a memory object",
)
_WANTED = re.compile(r"ried to allocate ([\d.]+) ?(bytes|[KMGT]i?B)?", re.IGNORECASE)
_UNITS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40}


@dataclass(frozen=True)
class Shortage:
    """An allocation that failed."""

    wanted_bytes: int | None
    """None where the allocator does not say."""
    during_update: bool = False
    """Some weights may have been updated already, and others not."""


class UpdateOutOfMemoryError(Exception):
    """Memory ran out while the optimizers were updating the weights."""


def shortage_of(error: BaseException) -> Shortage | None:
    """The shortage that an error tells of; None: it is about something else.

    CUDA has a type of its own for it; the CPU's allocator, cuBLAS and oneDNN have only their words.
    """
    if isinstance(error, UpdateOutOfMemoryError):
        cause = error.__cause__ and shortage_of(error.__cause__)
        return Shortage(cause.wanted_bytes if cause else None, during_update=True)
    text = str(error)
    told = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(saying in text for saying in _SAYINGS)
    )
    if not told:
        return None
    match = _WANTED.search(text)
    if match is None:
        return Shortage(None)
    unit = (match[2] or "bytes")[0].lower()
    return Shortage(int(float(match[1]) * 2 ** _UNITS[unit]))


def within_memory(run: Run, what: str, act: Callable[[], Result]) -> Result:
    """`act`, again with smaller micro-batches where memory runs out and the configuration leaves their size open.

    `what` is being done, for people. `act` is to read `run.micro_batch_size`; it begins each time from the same random
    state. The tokens of a step stay the same.

    Raises:
        OutOfMemoryError: it does not fit, with the setting that does.
    """
    while True:
        rng = random_states(run.world.device)
        try:
            return act()
        except (RuntimeError, MemoryError, UpdateOutOfMemoryError) as error:
            shortage = shortage_of(error)
            if shortage is None:
                raise
        # Out of the except block: the traceback held on to the tensors of the step.
        _let_go(run)
        smaller = _smaller_micro_batch(run)
        if smaller is None or shortage.during_update or not _is_free_to_choose(run):
            raise OutOfMemoryError(
                _told(run, what, shortage, smaller), between_steps=not shortage.during_update
            )
        _go_over_to(run, what, shortage, smaller)
        set_random_states(rng, run.world.device)


def _is_free_to_choose(run: Run) -> bool:
    """Several ranks would have to shrink together, and the others wait in the middle of the backward."""
    return run.config.micro_batch_size == "auto" and run.world.size == 1


def _smaller_micro_batch(run: Run) -> int | None:
    """The largest divisor of a step's sequences that is at most half of what it is now."""
    sequences = run.loader.windows_per_step // run.world.size
    sizes = range(1, run.micro_batch_size // 2 + 1)
    return max((size for size in sizes if sequences % size == 0), default=None)


def _let_go(run: Run) -> None:
    """Give back what the failed attempt left behind."""
    run.model.zero_grad(set_to_none=True)
    # It may have stopped between unscale_ and update, and a scaler does not forget that.
    scaler = run.precision.grad_scaler()
    scaler.load_state_dict(run.scaler.state_dict())
    run.scaler = scaler
    gc.collect()
    if run.world.device.type == "cuda":
        torch.cuda.empty_cache()


def _go_over_to(run: Run, what: str, shortage: Shortage, micro_batch_size: int) -> None:
    before = run.micro_batch_size
    run.micro_batch_size = micro_batch_size
    run.loader.regroup(micro_batch_size, run.position.window)
    if run.model._compiled_call_impl is not None:
        # Compiled for one shape; before the next step it is compiled for the new one.
        run.model._compiled_call_impl = None
        run.compiling_tried = False
    wanted = (
        "" if shortage.wanted_bytes is None else f" ({bytes_text(shortage.wanted_bytes)} more were wanted)"
    )
    accumulated = run.loader.windows_per_step // (micro_batch_size * run.world.size)
    text = (
        f"⚠️ Out of memory in {what}{wanted}: micro_batch_size {before} -> {micro_batch_size}, accumulated "
        f"{accumulated} times; the tokens of a step stay the same, and nothing was lost"
    )
    data = {"before": before, "micro_batch_size": micro_batch_size, "wanted_bytes": shortage.wanted_bytes}
    run.sinks.event(Event(run.position.step, "action", "out_of_memory", text, interrupts=True, data=data))
    run.progress.pace_changed()


def _told(run: Run, what: str, shortage: Shortage, smaller: int | None) -> str:
    """One line: what was wanted, what is there, and what fits."""
    work = replace(run.workload, micro_batch_size=run.micro_batch_size)
    available = available_bytes(run.world.device)
    words = f"out of memory in {what}" + (f" on rank {run.world.rank}" if run.world.size > 1 else "")
    if shortage.wanted_bytes is not None:
        words += f": {bytes_text(shortage.wanted_bytes)} more were wanted"
        words += f" with {bytes_text(available)} free" if available is not None else ""
    words += (
        f"; at training.micro_batch_size = {run.micro_batch_size} a step needs about {_peak_text(work)}; "
        f"{_way_out(run, work, smaller)}"
    )
    if shortage.during_update:
        words += "; go on with --resume, this step was not finished"
    return words


def _way_out(run: Run, work: Workload, smaller: int | None) -> str:
    """The change that costs least."""
    if smaller is not None:
        less = _peak_text(replace(work, micro_batch_size=smaller, accumulates=True))
        choice = "" if run.world.size > 1 else " (or auto)"
        return (
            f"--set training.micro_batch_size={smaller}{choice} needs about {less} for the same tokens a step"
        )
    if work.recompute != "full":
        less = _peak_text(replace(work, recompute="full"))
        return f"--set training.activation_checkpointing=full needs about {less}, and a third more time"
    return "a shorter model.context_length or a smaller model is needed"


def _peak_text(work: Workload) -> str:
    return bytes_text(memory_report(work).peak)
