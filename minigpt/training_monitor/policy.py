"""From findings and a budget of skipped updates to the one action of a step."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

from minigpt.training_monitor.action import Action, Continue, SkipUpdate, Stop
from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.overflow import NonFiniteConfig, OverflowJudge
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What is done about findings. A non-finite update is never applied, whatever stands here."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    stop_when_budget_spent: bool = True
    """Stop with a verdict when too many updates had to be skipped; false: only say so."""
    max_skips_in_a_row: int = 5
    """Skipped updates in a row that end the run."""
    max_skipped_fraction: float = 0.02
    """Share of skipped updates in the last skipped_window steps that, when exceeded, ends the run."""
    skipped_window: int = 250
    """Steps over which the share of skipped updates is taken."""

    def __post_init__(self) -> None:
        require(self.max_skips_in_a_row >= 1, "policy.max_skips_in_a_row", self.max_skips_in_a_row, ">= 1")
        require(
            0 <= self.max_skipped_fraction <= 1,
            "policy.max_skipped_fraction",
            self.max_skipped_fraction,
            "between 0 and 1",
        )
        require(self.skipped_window >= 1, "policy.skipped_window", self.skipped_window, ">= 1")


REASONS = {
    "en": {
        "streak": "{count} updates in a row had to be skipped ({cause})",
        "share": "{count} of the last {window} updates had to be skipped ({cause})",
        "skip": "a non-finite update is never applied: {cause}",
    },
    "zh": {
        "streak": "已连续跳过 {count} 次参数更新（{cause}）",
        "share": "最近 {window} 步中跳过了 {count} 次参数更新（{cause}）",
        "skip": "非有限的更新不予执行：{cause}",
    },
}


class Policy:
    """Counts skipped updates; an ordinary fp16 overflow costs nothing."""

    def __init__(self, config: PolicyConfig, overflow: NonFiniteConfig, language: str) -> None:
        self._config = config
        self._reasons = REASONS[language]
        self._overflow = OverflowJudge(overflow)
        self._in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=config.skipped_window)

    def decide(self, signals: StepSignals, findings: Sequence[Finding]) -> Action:
        """Stop when the budget is spent, SkipUpdate when this step was skipped for cause, else Continue."""
        calibrating = self._overflow.is_normal(signals) and isfinite(signals.loss)
        skipped = signals.update_skipped or not signals.finite
        if skipped and calibrating:
            return Continue()  # neither spends the budget nor ends a row of real skips
        self._in_a_row = self._in_a_row + 1 if skipped else 0
        self._recent.append(skipped)
        if not skipped:
            return Continue()
        cause = "nan_loss" if not isfinite(signals.loss) else "non_finite_gradient"
        reason = self._spent(cause)
        if reason and self._config.stop_when_budget_spent:
            return Stop(signals.step, reason, cause)
        return SkipUpdate(signals.step, reason or self._reasons["skip"].format(cause=cause))

    def _spent(self, cause: str) -> str:
        """Why the budget is spent; empty while it is not."""
        if self._in_a_row >= self._config.max_skips_in_a_row:
            return self._reasons["streak"].format(count=self._in_a_row, cause=cause)
        count = sum(self._recent)
        if count > self._config.max_skipped_fraction * self._config.skipped_window:
            return self._reasons["share"].format(count=count, window=len(self._recent), cause=cause)
        return ""

    def state_dict(self) -> dict[str, Any]:
        return {
            "overflow": self._overflow.state_dict(),
            "in_a_row": self._in_a_row,
            "recent": list(self._recent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._overflow.load_state_dict(state["overflow"])
        self._in_a_row = state["in_a_row"]
        self._recent = deque(state["recent"], maxlen=self._config.skipped_window)
