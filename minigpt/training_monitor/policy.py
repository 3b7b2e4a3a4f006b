"""From findings and a budget of skipped updates to the one action of a step."""

from collections import deque
from collections.abc import Sequence
from math import isfinite
from typing import Any

from minigpt.training_monitor.action import Action, Continue, SkipUpdate, Stop
from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.overflow import OverflowJudge
from minigpt.training_monitor.signals import StepSignals

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

    def __init__(self, config: MonitorConfig) -> None:
        self._config = config.policy
        self._reasons = REASONS[config.language]
        self._overflow = OverflowJudge(config.non_finite)
        self._in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=config.policy.skipped_window)

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
