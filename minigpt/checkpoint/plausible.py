"""What a checkpoint's entries may be: looked at before anybody works with them."""

from typing import Annotated, Any, Literal

from pydantic import Field, InstanceOf, JsonValue, StringConstraints, TypeAdapter, ValidationError
from torch import Tensor
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from minigpt.errors import CheckpointError

Count = Annotated[int, Field(ge=0, le=1 << 53)]
_Size = Annotated[int, Field(ge=1, le=1 << 31)]
_Word = Annotated[str, StringConstraints(max_length=4096)]
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
    overrides: list[_Word]
    vocab_size: _Size
    tokenizer_id: _Word
    corpus: _Corpus
    environment: dict[_Word, _Word]


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
