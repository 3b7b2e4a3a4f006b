"""degenerate_batch: the tokens collapse to a few, or nearly all targets are masked out."""

from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.batch_facts import BatchFacts
from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class DegenerateBatchConfig:
    """When a batch's tokens or targets are called degenerate_batch."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    min_distinct_ratio: float = 0.25
    """Fewer different tokens than this fraction of the run's normal (and half of its own recent least) are few."""
    max_top_fraction: float = 0.9
    """A batch of which one token makes up more than this is nearly constant, where that is not the run's normal."""
    min_targets_ratio: float = 0.05
    """Fewer targets that count than this fraction of the run's normal share are few."""
    persist_steps: int = 2
    """Such steps in a row."""
    min_history: int = 8
    """Accepted steps before the run has a normal."""
    close_steps: int = 3
    """Normal batches in a row that end a sustained finding."""

    def __post_init__(self) -> None:
        rule = "degenerate_batch"
        for name in ("min_distinct_ratio", "max_top_fraction", "min_targets_ratio"):
            require(0 < getattr(self, name) < 1, f"{rule}.{name}", getattr(self, name), "between 0 and 1")
        for name in ("persist_steps", "min_history", "close_steps"):
            require(getattr(self, name) >= 1, f"{rule}.{name}", getattr(self, name), ">= 1")


SMOOTHING = 0.05
MEMORY = 0.997
"""How slowly a recent least or most is forgotten, a step."""
ALMOST_ALL = 0.999
FIRST_STEPS = 3
"""Steps in a row for a batch that needs no normal to be wrong: one single token, or no target at all."""


class DegenerateBatch:
    """Compares each batch with the run's own. Small batches vary: their recent least bounds what is called few."""

    def __init__(self, config: DegenerateBatchConfig) -> None:
        self._config = config
        self._incident = Incident("degenerate_batch")
        self._accepted = 0
        self._distinct_share = 0.0
        self._least_share = 1.0
        self._tokens = 0.0
        self._top = 0.0
        self._targets_share = 0.0
        self._least_targets = 1.0
        self._in_a_row = 0

    def observe(self, signals: StepSignals) -> list[Finding]:
        batch = signals.batch
        if batch is None or batch.tokens <= 0:
            return []
        evidence = self._judge(batch)
        if not evidence:
            self._in_a_row = 0
            self._accept(batch)
            return self._incident.good(signals.step, self._config.close_steps, {})
        self._in_a_row += 1
        place: Evidence = {"loss": signals.loss, "epoch": signals.epoch, "position": signals.position}
        evidence = {**evidence, **place}
        findings = self._incident.bad(signals.step, evidence)
        known = self._accepted >= self._config.min_history
        if self._in_a_row >= (self._config.persist_steps if known else FIRST_STEPS):
            findings += self._incident.sustain(signals.step, evidence)
        return findings

    def _judge(self, batch: BatchFacts) -> Evidence:
        """What is wrong with the batch; empty: nothing."""
        known = self._accepted >= self._config.min_history
        if batch.ignored_fraction is not None:
            share = 1 - batch.ignored_fraction
            few = (
                share < self._config.min_targets_ratio * self._targets_share
                and share < self._least_targets / 2
            )
            if batch.ignored_fraction > ALMOST_ALL or (known and few):
                return {"trigger": "targets", "value": share, "normal": self._targets_share}
        if batch.tokens < FEWEST_TOKENS:
            return {}
        if batch.distinct_tokens == 1:
            return {"trigger": "tokens", "value": 1, "top_fraction": 1.0}
        if not known:
            return {}
        # Longer batches have fewer different tokens for each one: judged as if they had as many as before.
        share = batch.distinct_tokens / min(batch.tokens, self._tokens)
        constant = batch.top_fraction > self._config.max_top_fraction and self._top < CONSTANT_NORMAL
        few = share < self._config.min_distinct_ratio * self._distinct_share and share < self._least_share / 2
        if not constant and not few:
            return {}
        normal = self._distinct_share * min(batch.tokens, self._tokens)
        return {
            "trigger": "variety",
            "value": batch.distinct_tokens,
            "normal": normal,
            "ratio": batch.distinct_tokens / normal,
            "top_fraction": batch.top_fraction,
        }

    def _accept(self, batch: BatchFacts) -> None:
        rate = max(SMOOTHING, 1 / (self._accepted + 1))
        share = batch.distinct_tokens / batch.tokens
        self._distinct_share += rate * (share - self._distinct_share)
        self._least_share = min(share, self._least_share + (1 - MEMORY) * self._distinct_share)
        self._tokens += rate * (batch.tokens - self._tokens)
        self._top += rate * (batch.top_fraction - self._top)
        if batch.ignored_fraction is not None:
            targets = 1 - batch.ignored_fraction
            self._targets_share += rate * (targets - self._targets_share)
            self._least_targets = min(targets, self._least_targets + (1 - MEMORY) * self._targets_share)
        self._accepted += 1

    def rebase(self) -> None:
        """Other data: other normals."""
        self._accepted = 0
        self._least_share = self._least_targets = 1.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            **{name: getattr(self, f"_{name}") for name in STATE},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        for name in STATE:
            setattr(self, f"_{name}", state[name])


FEWEST_TOKENS = 64
"""A batch of fewer tokens says nothing about their variety: a line of blanks is one of many lines."""
CONSTANT_NORMAL = 0.7
"""A run whose usual share of the most frequent token (padding) is above this is not judged by it."""
STATE = (
    "accepted",
    "distinct_share",
    "least_share",
    "tokens",
    "top",
    "targets_share",
    "least_targets",
    "in_a_row",
)
