"""repeated_batch: the same batch again and again, or a loader caught in a short loop."""

from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.degenerate_batch import FEWEST_TOKENS
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class RepeatedBatchConfig:
    """When equal batches are called repeated_batch."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    persist_steps: int = 3
    """The same batch in this many steps in a row."""
    first_steps: int = 8
    """The same where there was never another batch: a rehearsal on one batch, or a loader that never moved."""
    short_period: int = 8
    """A cycle of fewer batches than this is a short loop, if the run had seen more batches before."""
    close_steps: int = 3
    """New batches in a row that end a sustained finding."""

    def __post_init__(self) -> None:
        for name in ("persist_steps", "first_steps", "short_period", "close_steps"):
            require(getattr(self, name) >= 2, f"repeated_batch.{name}", getattr(self, name), ">= 2")


class RepeatedBatch:
    """Batches differ from step to step. A tiny data set that comes round every epoch is no finding.

    Only neighbouring steps are compared: in a sparse record an epoch may be as long as the gap.
    """

    def __init__(self, config: RepeatedBatchConfig) -> None:
        self._config = config
        self._incident = Incident("repeated_batch")
        self._recent: list[int] = []
        self._distinct = 0
        self._step: int | None = None
        self._epoch = 0
        self._same = 0
        self._looping = 0
        self._epochs_pass = False

    def observe(self, signals: StepSignals) -> list[Finding]:
        batch = signals.batch
        if batch is None or (batch.distinct_tokens == 1 and batch.tokens >= FEWEST_TOKENS):
            return []  # batches of one and the same token are all alike: degenerate_batch says so
        step, value = signals.step, batch.hash
        if self._step is None or step != self._step + 1:
            self._recent.clear()
            self._same = self._looping = 0
        self._epochs_pass = self._step is not None and signals.epoch > self._epoch
        self._step, self._epoch = step, signals.epoch
        distance = self._distance(value)
        self._recent.append(value)
        del self._recent[: -self._config.short_period]
        if distance is None:
            self._same = self._looping = 0
            self._distinct = min(self._distinct + 1, 4 * self._config.short_period)
            return self._incident.good(step, self._config.close_steps, {})
        self._same = self._same + 1 if distance == 1 else 0
        self._looping += 1
        return self._repeated(signals, distance)

    def _distance(self, value: int) -> int | None:
        """Steps since this batch was last seen, if it was lately."""
        if value not in self._recent:
            return None  # nearly always
        for distance, earlier in enumerate(reversed(self._recent), start=1):
            if earlier == value:
                return distance if distance < self._config.short_period else None
        return None

    def _repeated(self, signals: StepSignals, distance: int) -> list[Finding]:
        whole_set = self._distinct <= self._config.short_period and distance > 1
        if whole_set or (self._epochs_pass and self._same):
            return []  # all the data there is, or one batch an epoch
        evidence: Evidence = {
            "count": self._looping + 1,
            "period": distance,
            "loss": signals.loss,
            "epoch": signals.epoch,
            "position": signals.position,
        }
        findings = self._incident.bad(signals.step, evidence)
        wanted = self._config.persist_steps if self._distinct > 1 else self._config.first_steps
        looped = self._looping >= 2 * self._config.short_period
        if self._same + 1 >= wanted or (looped and self._distinct > self._config.short_period):
            findings += self._incident.sustain(signals.step, evidence)
        return findings

    def rebase(self) -> None:
        """Another data set: how many batches it has is not known."""
        self._distinct = 0
        self._recent.clear()
        self._same = self._looping = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "recent": list(self._recent),
            "distinct": self._distinct,
            "step": self._step,
            "epoch": self._epoch,
            "same": self._same,
            "looping": self._looping,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._recent = list(state["recent"])
        self._distinct = state["distinct"]
        self._step, self._epoch = state["step"], state["epoch"]
        self._same, self._looping = state["same"], state["looping"]
