"""The life of one incident: suspected, then transient, or sustained and later resolved."""

from typing import Any

from minigpt.training_monitor.finding import Evidence, Finding, Status


class Incident:
    """At most one open incident of one name; methods return the finding of the turning point they caused."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.opened_at: int | None = None
        self.last_bad_at = 0
        self.bad_count = 0
        self.good_count = 0
        self.sustained = False

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None

    @property
    def length(self) -> int:
        """Steps from the first to the last unusual one."""
        return 0 if self.opened_at is None else self.last_bad_at - self.opened_at + 1

    def bad(self, step: int, evidence: Evidence, *, interrupts: bool = False) -> list[Finding]:
        """Notes an unusual step; a finding when it opens the incident."""
        opens = self.opened_at is None
        if opens:
            self.opened_at, self.bad_count, self.sustained = step, 0, False
        self.last_bad_at = step
        self.bad_count += 1
        self.good_count = 0
        return [self._finding("suspected", step, evidence, interrupts)] if opens else []

    def sustain(self, step: int, evidence: Evidence, *, interrupts: bool = True) -> list[Finding]:
        """Marks the open incident as lasting; a finding the first time."""
        if self.sustained or self.opened_at is None:
            return []
        self.sustained = True
        return [self._finding("sustained", step, evidence, interrupts)]

    def good(self, step: int, close_steps: int, evidence: Evidence) -> list[Finding]:
        """Notes a normal step: it ends a suspected incident; close_steps of them end a sustained one."""
        if self.opened_at is None:
            return []
        self.good_count += 1
        if self.sustained and self.good_count < close_steps:
            return []
        return self.close(step, evidence)

    def close(self, step: int, evidence: Evidence) -> list[Finding]:
        """Ends the incident."""
        if self.opened_at is None:
            return []
        finding = self._finding("resolved" if self.sustained else "transient", step, evidence, False)
        self.opened_at, self.bad_count, self.good_count, self.sustained = None, 0, 0, False
        return [finding]

    def _finding(self, status: Status, step: int, evidence: Evidence, interrupts: bool) -> Finding:
        assert self.opened_at is not None
        return Finding(self.name, status, self.opened_at, step, self.length, interrupts, dict(evidence))

    def state_dict(self) -> dict[str, Any]:
        return {
            "opened_at": self.opened_at,
            "last_bad_at": self.last_bad_at,
            "bad_count": self.bad_count,
            "good_count": self.good_count,
            "sustained": self.sustained,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.opened_at = state["opened_at"]
        self.last_bad_at = state["last_bad_at"]
        self.bad_count = state["bad_count"]
        self.good_count = state["good_count"]
        self.sustained = state["sustained"]
