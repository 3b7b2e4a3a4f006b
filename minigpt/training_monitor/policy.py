"""From findings and a budget of skipped updates to the one action of a step."""

from collections import deque
from collections.abc import Sequence
from math import isfinite
from typing import Any

from minigpt.training_monitor.action import Action, Continue, RollBack, ScaleLearningRate, SkipUpdate, Stop
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.overflow import Fp16Config, OverflowJudge
from minigpt.training_monitor.policy_config import HARMLESS, STRUCTURAL, PolicyConfig
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.spike_gate import SpikeGate

__all__ = ["Policy", "PolicyConfig"]

SAME_INCIDENT_STEPS = 60
"""Open findings that began this close to each other are one trouble."""
AT_ONE_LOOK = frozenset(("weight_jump",))
"""Exact, and over after a step: there is nothing that could last."""

REASONS = {
    "en": {
        "streak": "{count} updates in a row had to be skipped ({cause})",
        "share": "{count} of the last {window} updates had to be skipped ({cause})",
        "skip": "a non-finite update is never applied: {cause}",
        "spike": "gradient norm {norm:.4g} is far above its own normal: the update was skipped "
        "(monitor.policy.skip_spikes)",
        "structural": "{cause} is a fault of code or configuration, which no action mends "
        "(monitor.policy.on_structural=stop)",
        "stop": "{cause} since step {opened_at} (monitor.policy.on_sustained=stop)",
        "rollback": "{cause} since step {opened_at}: back to a healthy checkpoint "
        "(monitor.policy.on_sustained=rollback)",
        "lower_lr": "{cause} since step {opened_at}: the learning rate is x {factor:g} for {steps} steps, "
        "then rises back over {rewarm} (monitor.policy.on_sustained=lower_lr)",
    },
    "zh": {
        "streak": "已连续跳过 {count} 次参数更新（{cause}）",
        "share": "最近 {window} 步中跳过了 {count} 次参数更新（{cause}）",
        "skip": "非有限的更新不予执行：{cause}",
        "spike": "梯度范数 {norm:.4g} 远高于自身正常值：本次参数更新已跳过（monitor.policy.skip_spikes）",
        "structural": "{cause} 属于代码或配置错误，任何措施都无法补救（monitor.policy.on_structural=stop）",
        "stop": "自第 {opened_at} 步起 {cause}（monitor.policy.on_sustained=stop）",
        "rollback": "自第 {opened_at} 步起 {cause}：回退到健康的检查点（monitor.policy.on_sustained=rollback）",
        "lower_lr": "自第 {opened_at} 步起 {cause}：学习率乘以 {factor:g}，持续 {steps} 步，再用 {rewarm} 步恢复"
        "（monitor.policy.on_sustained=lower_lr）",
    },
}


class Policy:
    """Counts skipped updates (an ordinary fp16 overflow costs nothing) and answers each incident once."""

    def __init__(self, config: PolicyConfig, overflow: Fp16Config, language: str) -> None:
        self._config = config
        self._reasons = REASONS[language]
        self._overflow = OverflowJudge(overflow)
        self._gate = SpikeGate(config) if config.skip_spikes else None
        self._in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=config.skipped_window)
        self._open_since: dict[str, int] = {}
        self._answered_until = 0

    @property
    def trouble_since(self) -> int | None:
        """The first bad step of what is open now and came over weights that had been good; None: nothing did."""
        apart = HARMLESS | STRUCTURAL
        return min((at for name, at in self._open_since.items() if name not in apart), default=None)

    def skip_above(self, step: int) -> float | None:
        """The gradient norm above which the update of `step` (counted from 1) is to be called off."""
        return None if self._gate is None else self._gate.bound_at(step)

    def decide(self, signals: StepSignals, findings: Sequence[Finding]) -> Action:
        """The action asked for by a finding, else by the budget of skipped updates; nearly always Continue."""
        for finding in findings:
            if finding.status in ("suspected", "sustained"):
                self._open_since.setdefault(finding.name, finding.opened_at)
            else:
                self._open_since.pop(finding.name, None)
        skip = self._skip(signals)
        wanted = self._answer(signals.step, findings)
        if isinstance(skip, Stop) and isinstance(wanted, ScaleLearningRate):
            return skip
        return skip if isinstance(wanted, Continue) else wanted

    def _answer(self, step: int, findings: Sequence[Finding]) -> Action:
        """What the findings of this step ask for."""
        for finding in findings:
            serious = finding.status == "sustained" or (finding.interrupts and finding.status == "suspected")
            if serious and finding.name in STRUCTURAL and self._config.on_structural == "stop":
                reason = self._reasons["structural"].format(cause=finding.name)
                return Stop(step, reason, finding.name)
        for finding in findings:
            lasts = finding.status == "sustained"
            at_once = finding.name in AT_ONE_LOOK and finding.interrupts and finding.status == "suspected"
            is_new = finding.opened_at > self._answered_until
            if (lasts or at_once) and is_new and finding.name in self._config.act_on:
                action = self._action(step, finding)
                if not isinstance(action, Continue):
                    # What opens before the answer, or while it is at work, belongs to the trouble answered.
                    at_work = action.steps if isinstance(action, ScaleLearningRate) else 0
                    self._answered_until = step + at_work
                    return action
        return Continue()

    def _action(self, step: int, finding: Finding) -> Action:
        config, cause = self._config, finding.name
        opened_at = min(
            at
            for name, at in ((cause, finding.opened_at), *self._open_since.items())
            if name in config.act_on and finding.opened_at - at <= SAME_INCIDENT_STEPS
        )
        if config.on_sustained == "continue":
            return Continue()
        reason = self._reasons[config.on_sustained].format(
            cause=cause,
            opened_at=opened_at if config.on_sustained == "rollback" else finding.opened_at,
            factor=config.lower_lr_factor,
            steps=config.lower_lr_steps,
            rewarm=config.rewarm_steps,
        )
        if config.on_sustained == "stop":
            return Stop(step, reason, cause)
        if config.on_sustained == "rollback":
            return RollBack(step, reason, cause, opened_at)
        return ScaleLearningRate(
            step, reason, cause, config.lower_lr_factor, config.lower_lr_steps, config.rewarm_steps
        )

    def _skip(self, signals: StepSignals) -> Action:
        """Stop when the budget is spent, SkipUpdate when this step was skipped for cause, else Continue."""
        if self._gate is not None and self._gate.observe(signals):
            # Has a cap of its own, and says nothing about whether numbers are finite.
            return SkipUpdate(signals.step, self._reasons["spike"].format(norm=signals.grad_norm))
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
            "gate": None if self._gate is None else self._gate.state_dict(),
            "in_a_row": self._in_a_row,
            "recent": list(self._recent),
            "open_since": dict(self._open_since),
            "answered_until": self._answered_until,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._overflow.load_state_dict(state["overflow"])
        if self._gate is not None and state["gate"] is not None:
            self._gate.load_state_dict(state["gate"])
        self._in_a_row = state["in_a_row"]
        self._recent = deque(state["recent"], maxlen=self._config.skipped_window)
        self._open_since = dict(state["open_since"])
        self._answered_until = state["answered_until"]
