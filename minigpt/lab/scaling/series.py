"""What is varied, one thing at a time, and what each member of a series should cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from minigpt.lab.bench.shapes import Shape
from minigpt.lab.bench.summary import Spread
from minigpt.model.count import flops_per_token, padded_vocab_size

TOKENS_PER_STEP = 4096
VOCAB_SIZE = 4096
HEAD_DIM = 64


@dataclass(frozen=True)
class Series:
    """Shapes that differ in one number."""

    name: str
    shapes: tuple[Shape, ...]
    values: tuple[int, ...]
    """Of the number that is varied."""


def all_series(depths: Sequence[int], widths: Sequence[int], contexts: Sequence[int]) -> list[Series]:
    """Depth, width and context, each around 4 layers x 256 at context 256, with as many tokens a step everywhere."""
    return [
        Series("depth (layers)", tuple(_shape(depth, 256, 256) for depth in depths), tuple(depths)),
        Series("width (hidden size)", tuple(_shape(4, width, 256) for width in widths), tuple(widths)),
        Series("context (tokens)", tuple(_shape(4, 256, context) for context in contexts), tuple(contexts)),
    ]


def _shape(layers: int, width: int, context: int) -> Shape:
    name = f"{layers}x{width}@{context}/{VOCAB_SIZE}"
    sequences = max(1, TOKENS_PER_STEP // context)
    return Shape(name, layers, width, width // HEAD_DIM, context, VOCAB_SIZE, sequences, 1, "small")


def flops_of(shape: Shape) -> int:
    """Of one token, by the formula that MFU is reported with."""
    return flops_per_token(shape.model, padded_vocab_size(shape.vocab_size))


@dataclass(frozen=True)
class Cost:
    """What a token of one shape costs, and what it should."""

    value: int
    flops_per_token: int
    seconds_per_token: Spread
    predicted_seconds_per_token: float

    @property
    def over_predicted(self) -> float:
        return self.seconds_per_token.median / self.predicted_seconds_per_token


def costs(values: Sequence[int], flops: Sequence[int], measured: Sequence[Spread]) -> list[Cost]:
    """Measured beside predicted: at the FLOP/s that the series' largest member reaches, cost follows the FLOPs."""
    most, pace = max(zip(flops, measured, strict=True), key=lambda pair: pair[0])
    # Times the share of its FLOPs: of the largest exactly its own time, whatever that rounds to.
    return [
        Cost(value, work, spread, pace.median * (work / most))
        for value, work, spread in zip(values, flops, measured, strict=True)
    ]
