"""What is trained, and on which terms: the same for every contender."""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from minigpt.errors import ConfigError
from minigpt.model.config import ModelConfig


@dataclass(frozen=True)
class Shape:
    """A decoder's shape and its batch. The SwiGLU's width follows from `hidden_size`; GELU's is 4 x, of equal cost."""

    name: str
    num_layers: int
    hidden_size: int
    num_heads: int
    context_length: int
    vocab_size: int
    micro_batch_size: int
    grad_accum_steps: int
    preset: str
    """The preset whose recipe the contender `minigpt-preset` follows."""

    @property
    def tokens_per_step(self) -> int:
        return self.micro_batch_size * self.grad_accum_steps * self.context_length

    @property
    def model(self) -> ModelConfig:
        """The shape as MiniGPT configures it, with nothing switched on that the peers have not."""
        return ModelConfig(
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            context_length=self.context_length,
        )


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 2, 32, 2, 16, 320, 4, 2, "small"),
        Shape("small", 6, 384, 6, 256, 8192, 16, 1, "small"),
        Shape("small-4096", 6, 384, 6, 256, 4096, 16, 1, "small"),
        Shape("medium", 16, 512, 8, 512, 16384, 4, 2, "medium"),
        Shape("16x1024", 16, 1024, 16, 1024, 32768, 16, 1, "medium"),
    )
}
PRESETS = {"small": ("small", "small-4096"), "medium": ("medium",), "both": ("small", "small-4096", "medium")}
_FREE = re.compile(r"(\d+)x(\d+)@(\d+)/(\d+)")
_HEAD = 64


def shape_named(name: str) -> Shape:
    """A shape of the table, or LAYERSxHIDDEN@CONTEXT/VOCABULARY with heads of 64 and 4,096 tokens a step.

    Raises:
        ConfigError: neither.
    """
    if name in SHAPES:
        return SHAPES[name]
    found = _FREE.fullmatch(name)
    numbers = [int(part) for part in found.groups()] if found else []
    if not numbers or 0 in numbers or numbers[1] % _HEAD:
        raise ConfigError(
            f"--shape {name}: there is no such shape; use {', '.join(SHAPES)} or LAYERSxHIDDEN@CONTEXT/VOCABULARY "
            f"with HIDDEN a multiple of {_HEAD}, like 8x512@256/8192"
        )
    layers, hidden, context, vocab = numbers
    return Shape(name, layers, hidden, hidden // _HEAD, context, vocab, max(1, 4096 // context), 1, "small")


@dataclass(frozen=True)
class Terms:
    """What all contenders share, besides the threads: the shape, the arithmetic, the data, the optimizer's numbers."""

    shape: Shape
    precision: str = "bf16"
    """bf16 (autocast over fp32 weights) | fp32."""
    compile: bool = True
    device: str = "cpu"
    source: str = "python-stdlib"
    tokenizer: str = "bpe"
    """bpe: of the shape's vocabulary; bytes: for tests, where nothing is to be trained first."""
    cache_dir: str | None = None
    learning_rate: float = 1e-3
    warmup_steps: int = 20
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    seed: int = 0

    def lr_at(self, step: int) -> float:
        """Learning rate of `step` (0-based): a linear warm-up, then constant."""
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        found = cls(**values)
        return replace(found, shape=Shape(**values["shape"]), betas=tuple(values["betas"]))
