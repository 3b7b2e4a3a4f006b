"""All that can be said of a run before it starts: computed, looked up, and its pace tried out."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from minigpt.model.count import flops_per_token, num_parameters
from minigpt.planning.levers import Lever, levers
from minigpt.planning.memory import MemoryReport, memory_report
from minigpt.planning.micro_batch import USABLE_FRACTION, most_sequences, usable_bytes
from minigpt.planning.pace import FASTER, SLOWER, Pace
from minigpt.planning.sharding import Share, shares
from minigpt.planning.workload import Workload


@dataclass(frozen=True)
class Length:
    """How long a run is."""

    max_steps: int
    tokens_per_step: int

    @property
    def tokens(self) -> int:
        return self.max_steps * self.tokens_per_step


@dataclass(frozen=True)
class Disk:
    """What the checkpoints of a run take."""

    folder: Path
    checkpoint_bytes: int
    checkpoints: int
    """At most at a time."""
    free_bytes: int | None

    @property
    def needed_bytes(self) -> int:
        return self.checkpoints * self.checkpoint_bytes


@dataclass(frozen=True)
class Forecast:
    """What a run will need and how long it will take."""

    name: str
    device: str
    work: Workload
    micro_batch_is_auto: bool
    length: Length
    corpus: str
    corpus_tokens: int | None
    """Of the training split; None where it is not prepared yet."""
    corpus_trouble: str | None
    memory: MemoryReport
    available_bytes: int | None
    most_sequences: int | None
    """The largest micro-batch that fits, whether or not it divides the step; None if not even 1 does."""
    levers: tuple[Lever, ...]
    shares: tuple[Share, ...]
    disk: Disk
    pace: Pace | None

    @property
    def parameters(self) -> int:
        return num_parameters(self.work.model, self.work.vocab_size)

    @property
    def tokens_per_parameter(self) -> float:
        return self.length.tokens / self.parameters

    @property
    def epochs(self) -> float | None:
        return None if not self.corpus_tokens else self.length.tokens / self.corpus_tokens

    @property
    def flops(self) -> int:
        """Of the whole run."""
        return flops_per_token(self.work.model, self.work.vocab_size) * self.length.tokens

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Of the whole run, at best and at worst."""
        if self.pace is None:
            return None
        eager = self.pace.step_seconds(self.length.tokens_per_step) * self.length.max_steps
        return FASTER * eager, SLOWER * eager

    def as_data(self) -> dict[str, Any]:
        """Plain data, sizes in bytes."""
        seconds, work = self.seconds, self.work
        return {
            "name": self.name,
            "device": self.device,
            "precision": work.precision,
            "optimizer": work.optimizer,
            "activation_checkpointing": work.recompute,
            "model": work.model.model_dump(mode="json") | {"vocab_size": work.vocab_size},
            "parameters": self.parameters,
            "max_steps": self.length.max_steps,
            "tokens_per_step": self.length.tokens_per_step,
            "tokens": self.length.tokens,
            "tokens_per_parameter": self.tokens_per_parameter,
            "flops": self.flops,
            "seconds": None if seconds is None else {"least": seconds[0], "most": seconds[1]},
            "corpus": self.corpus,
            "corpus_tokens": self.corpus_tokens,
            "epochs": self.epochs,
            "micro_batch_size": work.micro_batch_size,
            "memory": {
                "peak": self.memory.peak,
                "parts": dict(self.memory.parts()),
                "available": self.available_bytes,
                "most_sequences": self.most_sequences,
            },
            "disk": {
                **asdict(self.disk),
                "folder": str(self.disk.folder),
                "needed_bytes": self.disk.needed_bytes,
            },
            "levers": [asdict(lever) for lever in self.levers],
            "shares": [asdict(share) for share in self.shares],
        }


def forecast(
    name: str,
    device: str,
    work: Workload,
    length: Length,
    *,
    micro_batch_is_auto: bool,
    corpus: str,
    corpus_tokens: int | None,
    corpus_trouble: str | None,
    available_bytes: int | None,
    tokenizer_vocab_size: int | None,
    checkpoints: int,
    run_dir: Path,
    pace: Pace | None,
    devices: Sequence[int],
) -> Forecast:
    """The forecast of a run that trains `work` on one device; `tokenizer_vocab_size` as for `levers`."""
    memory = memory_report(work)
    return Forecast(
        name=name,
        device=device,
        work=work,
        micro_batch_is_auto=micro_batch_is_auto,
        length=length,
        corpus=corpus,
        corpus_tokens=corpus_tokens,
        corpus_trouble=corpus_trouble,
        memory=memory,
        available_bytes=available_bytes,
        most_sequences=_most_sequences(work, available_bytes),
        levers=tuple(levers(work, tokenizer_vocab_size=tokenizer_vocab_size)),
        shares=tuple(share for number in devices for share in shares(work, number)),
        disk=Disk(run_dir, memory.checkpoint_file, checkpoints, _free_bytes(run_dir)),
        pace=pace,
    )


def _most_sequences(work: Workload, available_bytes: int | None) -> int | None:
    if available_bytes is None:
        return None
    accumulating = replace(work, accumulates=True)
    return most_sequences(accumulating, usable_bytes(work, available_bytes, USABLE_FRACTION), at_most=1 << 20)


def _free_bytes(folder: Path) -> int | None:
    """Of the disk that the folder is on, or will be."""
    existing = next((level for level in (folder, *folder.absolute().parents) if level.is_dir()), None)
    try:
        usage = None if existing is None else shutil.disk_usage(existing)
    except OSError:  # a disk that does not tell
        return None
    # Some FUSE file systems do not know.
    return usage.free if usage is not None and usage.total else None
