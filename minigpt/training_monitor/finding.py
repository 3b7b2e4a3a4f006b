"""What a detector has to say about one incident, at one of its turning points."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["suspected", "transient", "sustained", "resolved"]
Evidence = Mapping[str, float | int | str | bool]


@dataclass(frozen=True, slots=True)
class Finding:
    """An incident opens as suspected; it ends transient, or becomes sustained and may be resolved."""

    name: str
    status: Status
    opened_at: int
    step: int
    """The step at which this status was reached."""
    length: int
    """Steps from the first to the last unusual one."""
    interrupts: bool = False
    """Whether it deserves the user's attention now; otherwise it is an event in the record."""
    evidence: Evidence = field(default_factory=dict)
