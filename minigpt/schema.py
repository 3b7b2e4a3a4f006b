"""The strict, frozen base of every configuration class, and the field types that forgive YAML's traps."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Config(BaseModel):
    """Base of all configs: unknown keys are errors, nothing changes after load, docstrings become the schema."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


def _on_off(value: Any) -> Any:
    """YAML 1.1 reads a bare on/off as a boolean; the field wants the word."""
    if value is True:
        return "on"
    if value is False:
        return "off"
    return value


def _no_bool(value: Any) -> Any:
    """`true` is not a count: pydantic would take it as 1."""
    if isinstance(value, bool):
        raise ValueError("a number, not a boolean")
    return value


OnOff = BeforeValidator(_on_off)
NotBool = BeforeValidator(_no_bool)
Int = Annotated[int, NotBool]
Float = Annotated[float, NotBool]
