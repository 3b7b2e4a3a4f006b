"""label_mismatch and label_leak: the targets no longer belong to the inputs, or are the inputs themselves."""

from dataclasses import dataclass
from math import isfinite, log
from typing import Any, ClassVar

from minigpt.training_monitor.batch_facts import BatchFacts
from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class LabelsConfig:
    """When targets are called label_mismatch or label_leak."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether these two rules run."""
    high: float = 0.9
    """A share of targets equal to the next input (or, for models that shift by themselves, to the same input) from
    which on the run is known to be built that way."""
    low: float = 0.5
    """Below this share where it used to be high the targets do not belong to the inputs; above it where it used to be
    low the targets leak."""
    exact: float = 0.98
    """Where every batch so far (exact_history of them) had a larger share than this, one below high is a mismatch."""
    exact_history: int = 8
    """Batches that show that the relation is exact."""
    persist_steps: int = 3
    """Such steps in a row; fewer are noted as one bad batch."""
    min_history: int = 2
    """Steps before the run is known to be built one way or the other."""
    leak_loss_ratio: float = 0.3
    """Targets that always were the inputs leak if the loss falls below this fraction of ln(vocab_size)..."""
    leak_steps: int = 60
    """...within this many steps."""
    close_steps: int = 3
    """Normal batches in a row that end a sustained finding."""

    def __post_init__(self) -> None:
        require(0 < self.low < 1, "labels.low", self.low, "between 0 and 1")
        require(self.low < self.high <= 1, "labels.high", self.high, f"above low = {self.low}, at most 1")
        require(self.high <= self.exact <= 1, "labels.exact", self.exact, f"from high = {self.high} to 1")
        require(
            0 <= self.leak_loss_ratio < 1,
            "labels.leak_loss_ratio",
            self.leak_loss_ratio,
            "at least 0, below 1",
        )
        for name in ("exact_history", "persist_steps", "min_history", "leak_steps", "close_steps"):
            require(getattr(self, name) >= 1, f"labels.{name}", getattr(self, name), ">= 1")


SMOOTHING = 0.1


class Labels:
    """Learns from the run itself how its targets relate to its inputs, then holds it to that."""

    def __init__(self, config: LabelsConfig, vocab_size: int | None, resumed: bool) -> None:
        self._config = config
        self._knows_nothing = log(vocab_size) if vocab_size is not None and vocab_size > 1 else None
        self._mismatch = Incident("label_mismatch")
        self._leak = Incident("label_leak")
        self._match = 0.0
        self._copy = 0.0
        self._least_match = self._least_copy = 1.0
        self._accepted = 0
        self._mismatched = 0
        self._leaked = 0
        self._seen = 0
        self._started_high = False
        self._resumed = resumed

    def observe(self, signals: StepSignals) -> list[Finding]:
        batch = signals.batch
        if batch is None or batch.label_match is None or batch.label_copy is None:
            return []
        match, copy = batch.label_match, batch.label_copy
        leaks = self._leaks(match, copy) or self._leaked_from_the_start(signals, copy)
        mismatched = not leaks and (self._is_mismatched(match, copy) or self._never_matched(batch))
        self._leaked = self._leaked + 1 if leaks else 0
        self._mismatched = self._mismatched + 1 if mismatched else 0
        if not leaks and not mismatched:
            self._accept(match, copy)
            if not self._leak.is_open and not self._mismatch.is_open:
                return []  # nearly always
        evidence = self._evidence(batch, signals)
        return self._told(self._leak, self._leaked, signals.step, evidence) + self._told(
            self._mismatch, self._mismatched, signals.step, evidence
        )

    def _known(self) -> bool:
        return self._accepted >= self._config.min_history

    def _leaks(self, match: float, copy: float) -> bool:
        """Whether the targets became the inputs: a text of one repeated token would be both."""
        low, high = self._config.low, self._config.high
        return copy > high and match < high and self._copy < low and self._known()

    def _is_mismatched(self, match: float, copy: float) -> bool:
        if not self._known():
            return False
        high = self._config.high
        if self._match >= high:
            return match < self._least_normal(self._least_match)
        least = self._least_normal(self._least_copy)
        return self._copy >= high and copy < least and match < least

    def _least_normal(self, least_so_far: float) -> float:
        """The share below which a batch is wrong: higher where all so far were right to the last target."""
        exact = self._accepted >= self._config.exact_history and least_so_far > self._config.exact
        return self._config.high if exact else self._config.low

    def _never_matched(self, batch: BatchFacts) -> bool:
        """Whether a language model's targets are, from the start, neither the next tokens nor its inputs.

        Masked language models are known by their mostly ignored targets, others by having no vocab_size.
        """
        if self._knows_nothing is None or self._resumed or (batch.ignored_fraction or 0.0) > self._config.low:
            return False
        chance = self._config.low * self._config.high
        shares = (self._match, batch.label_match or 0.0, self._copy, batch.label_copy or 0.0)
        return self._match < chance and max(shares) < chance

    def _leaked_from_the_start(self, signals: StepSignals, copy: float) -> bool:
        """Models that shift by themselves have targets equal to their inputs; but they do not learn that fast."""
        expected = self._knows_nothing
        if expected is None or self._resumed or not isfinite(signals.loss):
            return False
        self._seen += 1
        self._started_high = self._started_high or signals.loss > self._config.low * expected
        early = signals.step <= self._config.leak_steps
        fell = self._started_high and signals.loss < self._config.leak_loss_ratio * expected
        return (early or self._leaked > 0) and fell and copy > self._config.high > self._match

    def _told(self, incident: Incident, row: int, step: int, evidence: Evidence) -> list[Finding]:
        if not row:
            return incident.good(step, self._config.close_steps, evidence)
        findings = incident.bad(step, evidence)
        return findings + (incident.sustain(step, evidence) if row >= self._config.persist_steps else [])

    def _evidence(self, batch: BatchFacts, signals: StepSignals) -> Evidence:
        shifted_inside = self._copy >= self._config.high
        value, normal = (batch.label_copy, self._copy) if shifted_inside else (batch.label_match, self._match)
        assert value is not None
        assert batch.label_copy is not None
        return {
            "value": value,
            "normal": normal,
            "label_copy": batch.label_copy,
            "loss": signals.loss,
            "epoch": signals.epoch,
            "position": signals.position,
        }

    def _accept(self, match: float, copy: float) -> None:
        rate = max(SMOOTHING, 1 / (self._accepted + 1))
        self._match += rate * (match - self._match)
        self._copy += rate * (copy - self._copy)
        self._least_match = min(match, self._least_match)
        self._least_copy = min(copy, self._least_copy)
        self._accepted += 1

    def rebase(self) -> None:
        """Other data may be built another way."""
        self._accepted = 0
        self._match = self._copy = 0.0
        self._least_match = self._least_copy = 1.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "mismatch": self._mismatch.state_dict(),
            "leak": self._leak.state_dict(),
            **{name: getattr(self, f"_{name}") for name in STATE},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mismatch.load_state_dict(state["mismatch"])
        self._leak.load_state_dict(state["leak"])
        for name in STATE:
            setattr(self, f"_{name}", state[name])


STATE = (
    "match",
    "copy",
    "least_match",
    "least_copy",
    "accepted",
    "mismatched",
    "leaked",
    "seen",
    "started_high",
)
