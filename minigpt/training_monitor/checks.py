"""The range checks that every configuration class here makes."""

from typing import Any

STRICT: dict[str, Any] = {"extra": "forbid", "use_attribute_docstrings": True, "allow_inf_nan": False}
"""What pydantic does with our plain dataclasses when it reads them from a YAML file."""


def require(ok: bool, name: str, found: object, wanted: str) -> None:
    """Nothing, when `ok`.

    Raises:
        ValueError: it is not; says what, found and wanted.
    """
    if not ok:
        raise ValueError(f"{name} = {found} must be {wanted}")
