"""What a run will do, said before its first step."""

from dataclasses import dataclass

from minigpt.planning.memory import MemoryReport

CHINCHILLA_TOKENS_PER_PARAMETER = 20
"""Tokens a parameter that make the best use of a fixed amount of arithmetic (arXiv 2203.15556)."""
MAX_USEFUL_EPOCHS = 4
"""Up to here repeated text is nearly as good as new text (Muennighoff et al., arXiv 2305.16264)."""
GIB = 1 << 30


@dataclass(frozen=True)
class RunPlan:
    """What a run will do: sizes, length, memory and how it will compute."""

    name: str
    parameters: int
    context_length: int
    max_steps: int
    micro_batch_size: int
    grad_accum_steps: int
    world_size: int
    corpus: str
    """data.source, as the user wrote it."""
    corpus_tokens: int
    """Of the training split."""
    memory: MemoryReport
    """Of one rank, at micro_batch_size."""
    available_bytes: int | None
    fitting_micro_batch_size: int | None
    """A micro-batch that fits the memory; None if not even 1 does."""
    device: str
    precision: str
    compile: str

    @property
    def tokens_per_step(self) -> int:
        return self.micro_batch_size * self.grad_accum_steps * self.world_size * self.context_length

    @property
    def total_tokens(self) -> int:
        return self.max_steps * self.tokens_per_step

    @property
    def tokens_per_parameter(self) -> float:
        return self.total_tokens / self.parameters

    @property
    def epochs(self) -> float:
        return self.total_tokens / self.corpus_tokens

    def lines(self) -> list[str]:
        """One line a topic, for the console and the log."""
        ranks = f" x {self.world_size} ranks" if self.world_size > 1 else ""
        available = (
            "" if self.available_bytes is None else f" of {bytes_text(self.available_bytes)} available"
        )
        return [
            f"Model:     {count_text(self.parameters)} parameters, context {self.context_length}",
            f"Length:    {self.max_steps:,} steps x {self.tokens_per_step:,} tokens = "
            f"{count_text(self.total_tokens)} tokens",
            f"           {ratio_text(self.tokens_per_parameter)} tokens a parameter "
            f"(Chinchilla's optimum: {CHINCHILLA_TOKENS_PER_PARAMETER})",
            f"Corpus:    {self.corpus}: {count_text(self.corpus_tokens)} tokens, read {times_text(self.epochs)}",
            f"Batch:     {self.micro_batch_size} sequences x {self.grad_accum_steps} accumulated{ranks} "
            f"x {self.context_length} tokens",
            f"Memory:    about {bytes_text(self.memory.peak)}{available}; a checkpoint takes "
            f"{bytes_text(self.memory.checkpoint_file)}",
            f"Computes:  on {self.device}, {self.precision}, {self.compile}",
        ]

    def warnings(self) -> list[str]:
        """What will probably go wrong or waste time, one line each, with the way out."""
        found = []
        if self.epochs > MAX_USEFUL_EPOCHS:
            fitting = max(1, MAX_USEFUL_EPOCHS * self.corpus_tokens // self.tokens_per_step)
            found.append(
                f"reads the corpus {times_text(self.epochs)}: expect memorising, more text or fewer steps "
                f"(up to {MAX_USEFUL_EPOCHS} times is nearly as good as new text: "
                f"--set training.max_steps={fitting})"
            )
        if self.available_bytes is not None and self.memory.peak > self.available_bytes:
            found.append(
                f"needs about {bytes_text(self.memory.peak)} of memory and only "
                f"{bytes_text(self.available_bytes)} is available; {self._memory_way_out()}"
            )
        return found

    def _memory_way_out(self) -> str:
        if self.fitting_micro_batch_size is not None:
            return f"--set training.micro_batch_size={self.fitting_micro_batch_size} fits"
        return (
            "even one sequence at a time does not fit: --set training.activation_checkpointing=full, "
            "a shorter model.context_length or a smaller preset"
        )


def count_text(count: int) -> str:
    """A count in three digits: "13.6 M", "1.31 B"."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:
            return f"{_three_digits(count / size)} {unit}"
    return str(count)


def bytes_text(size_bytes: int) -> str:
    """A size in three digits: "512 MiB", "1.25 GiB"."""
    if size_bytes >= 1000 << 20:
        return f"{_three_digits(size_bytes / GIB)} GiB"
    return f"{_three_digits(size_bytes / (1 << 20))} MiB"


def times_text(epochs: float) -> str:
    """How often a text is read."""
    return f"{epochs:.2g} times" if epochs < 9.5 else f"{epochs:.0f} times"


def ratio_text(ratio: float) -> str:
    """A ratio in three digits."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
