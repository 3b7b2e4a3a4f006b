"""What a checkpoint's entries may be: looked at before anybody works with them."""

from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic wants this one before Python 3.12
)

from pydantic import (
    BeforeValidator,
    Field,
    InstanceOf,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from torch import Tensor
from typing_extensions import TypedDict

from minigpt.errors import CheckpointError

Count = Annotated[int, Field(ge=0, le=1 << 53)]
_Size = Annotated[int, Field(ge=1, le=1 << 31)]
_Word = Annotated[str, StringConstraints(max_length=4096)]
_Override = Annotated[str, StringConstraints(max_length=1 << 20)]
"""More than any system lets a command line be."""
_Name = Annotated[
    str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^/\\\x00-\x1f\x7f-\x9f]+$")
]


class _Position(TypedDict, total=False):
    step: Count
    tokens_seen: Count
    window: Count
    best_step: Count | None
    best_loss: float | None
    evaluated_step: Count | None
    compiled_from: Count | None
    lowered: dict[str, float | int] | None
    rollbacks: Count


class _Corpus(TypedDict):
    fingerprint: _Word
    folder: _Word


class _Mark(TypedDict):
    bytes: Count
    sha256: _Word


class _Thinning(TypedDict):
    counts: dict[_Word, Count]


class _Events(TypedDict):
    regular: _Thinning
    others: _Thinning


_Values = dict[_Word, float | int]
_Row = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""A tuple, which was saved as a list."""


class _Curves(TypedDict):
    clipped: list[bool]
    unshown: list[Annotated[tuple[Count, _Values], _Row]]
    all_until: Count
    thinning: _Thinning
    # Not in the first checkpoints that had these.
    newest_step: NotRequired[Count]
    of_newest: NotRequired[list[Annotated[tuple[_Word, _Values | str], _Row]]]


class _Incidents(TypedDict):
    recent: list[Annotated[tuple[Count, float | int, float | int], _Row]]
    # A folder is named after it.
    open: list[
        Annotated[tuple[Count, Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,64}$")], Count], _Row]
    ]
    drawn: list[_Name]


class _Sinks(TypedDict, total=False):
    events: _Events
    tensorboard: _Curves
    incident_curves: _Incidents


class _Saved(TypedDict, total=False):
    """The entries by name; what they must fit besides (the model, the optimizer) is not known here."""

    format: int
    step: Count
    model_state_dict: dict[_Word, InstanceOf[Tensor]]
    optimizer_state_dicts: list[dict[_Word, Any]]
    scaler_state_dict: dict[_Word, float | int]
    rng: list[dict[_Word, Any]]
    position: _Position
    monitor: dict[_Word, Any]
    probe: dict[_Word, Any]
    open_findings: dict[_Name, Literal["suspected", "sustained"]]
    trouble_since: Count | None
    healthy: bool
    micro_batch_size: _Size
    world_size: _Size
    precision: Literal["off", "bf16", "fp16"]
    name: _Name
    config: dict[_Word, JsonValue]
    overrides: list[_Override]
    vocab_size: _Size
    tokenizer_id: _Word
    corpus: _Corpus
    environment: dict[_Word, _Word]
    records: dict[_Name, _Mark]
    sinks: _Sinks


_ADAPTER = TypeAdapter(_Saved)
_FOR_RESUME = (
    "optimizer_state_dicts", "scaler_state_dict", "rng", "position", "monitor", "micro_batch_size", "precision",
    "name", "config", "overrides", "tokenizer_id", "corpus", "environment",
)  # fmt: skip


def implausible(state: dict[str, Any]) -> str | None:
    """What cannot be in a checkpoint's content, in a few words; None where all of it can."""
    try:
        _ADAPTER.validate_python(state, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place[:80]!r}: {first['msg'][:120].lower()}"
    return None


def check_can_resume(state: dict[str, Any], place: object) -> None:
    """Nothing, when a checkpoint has all that going on needs.

    Raises:
        CheckpointError: it does not.
    """
    missing = [name for name in _FOR_RESUME if name not in state]
    missing += [f"position.{name}" for name in ("step", "window") if name not in state.get("position", {})]
    if missing:
        raise CheckpointError(
            f"{place} cannot be resumed: it has no {', '.join(missing)}; use another checkpoint"
        )
