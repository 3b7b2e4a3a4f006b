"""Findings that belong together: one incident, told once, and again only when a better explanation joins it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from minigpt.training_monitor.finding import Finding

MERGE_STEPS = 60
"""Findings this close to the last bad step of an incident that lasted, or is open, belong to it."""
MERGE_STEPS_AFTER_A_BLIP = 16
"""The same for one that was over by itself."""

RANKS: tuple[frozenset[str], ...] = (
    # Exact invariants: what they name is the cause.
    frozenset(
        (
            "unoptimized_parameter",
            "missing_gradient",
            "frozen_parameter",
            "no_update",
            "leftover_gradient",
            "optimizer_state_lost",
            "weight_jump",
            "learning_rate_mismatch",
            "initial_loss",
            "future_leak",
            "overflow_streak",
            "scale_collapse",
        )
    ),
    frozenset(("label_mismatch", "label_leak", "repeated_batch", "degenerate_batch")),
    frozenset(("update_ratio_high", "update_ratio_low", "weight_collapse")),
    frozenset(("dead_layer", "dead_units")),
    frozenset(("gradient_scale_shift", "gradient_underflow")),
    frozenset(("attention_logit_growth", "activation_growth", "output_logit_growth")),
    frozenset(("nan_loss", "non_finite_gradient")),
    frozenset(("gradient_exploding", "gradient_vanishing", "clip_saturation")),
    frozenset(("loss_divergence", "loss_collapse")),
)
"""From what explains most to what is only a symptom; names that stand in none come last."""
MACHINE = frozenset(("throughput_drop", "memory_growth"))
"""What happens to the machine explains nothing of the training: incidents of their own."""
EXACT_RANKS = 2
"""Findings of a rank below this are exact: what follows is their consequence, even once they are over."""
EXPLAINING_RANKS = 5
"""Findings of a rank below this explain others; the rest are symptoms."""
MAY_FOLLOW = frozenset(
    (
        "weight_jump",
        "weight_collapse",
        "dead_layer",
        "dead_units",
        "frozen_parameter",
        "update_ratio_high",
        "update_ratio_low",
        "gradient_scale_shift",
        "gradient_underflow",
        "overflow_streak",
        "scale_collapse",
    )
)
"""Explaining findings that may themselves follow from an earlier one: from a wrecked model, say."""
FOLLOWS_AFTER = 5
"""Steps after an explaining finding from which those that may follow from it are taken to."""
SCALER = frozenset(("overflow_streak", "scale_collapse"))
"""What a lasting NaN does to the GradScaler: it halves its scale each time, though the loss was NaN before scaling."""
GRAVE = frozenset(("nan_loss", "non_finite_gradient"))
"""Told once in an incident whatever explains them: updates are lost."""


def rank(name: str) -> int:
    """How much a finding explains: 0 the most."""
    return next((index for index, names in enumerate(RANKS) if name in names), len(RANKS))


@dataclass(slots=True)
class Case:
    """One incident: its members so far and what the user was told of it."""

    number: int
    opened_at: int
    seen_at: int
    members: dict[str, Finding] = field(default_factory=dict)
    """The newest finding of each name."""
    told: list[str] = field(default_factory=list)
    """Names that interrupted the user."""
    cause: dict[str, Any] | None = None
    """What was told as the likeliest cause: name, weight and reasons."""

    @property
    def is_open(self) -> bool:
        return any(finding.status in ("suspected", "sustained") for finding in self.members.values())

    def follows(self, finding: Finding) -> bool:
        """Whether a finding is a consequence of one that explains and came clearly before it."""
        explaining = [
            member.opened_at
            for member in self.members.values()
            if member.name in self.told
            and member.name != finding.name
            and rank(member.name) < EXPLAINING_RANKS
        ]
        if finding.name in SCALER and "nan_loss" in self.told:
            return finding.opened_at > self.members["nan_loss"].opened_at
        late = bool(explaining) and finding.opened_at > min(explaining) + FOLLOWS_AFTER
        return late and (finding.name in MAY_FOLLOW or rank(finding.name) >= EXPLAINING_RANKS)

    @property
    def is_of_the_machine(self) -> bool:
        return self.members.keys() <= MACHINE

    def reaches(self, step: int) -> bool:
        """Whether something that begins at `step` is still part of it."""
        lasted = any(finding.status != "transient" for finding in self.members.values())
        return step - self.seen_at <= (MERGE_STEPS if lasted else MERGE_STEPS_AFTER_A_BLIP)


class IncidentBook:
    """Gives each finding its incident, and keeps the user from being told the same thing twice."""

    def __init__(self) -> None:
        self._cases: list[Case] = []
        """Those that a finding may still join or end, oldest first."""
        self._count = 0

    def enter(self, findings: Sequence[Finding]) -> list[tuple[Finding, Case]]:
        """The findings with their incident; one that adds nothing to what was told does not interrupt."""
        # The best explanation of a step first: the others of the same step then have nothing to add. What one
        # rule says at one step stays together and in its order: it opens before it lasts.
        quiet = {finding.name: True for finding in findings}
        for finding in findings:
            quiet[finding.name] &= not finding.interrupts
        names = sorted(quiet, key=lambda name: (quiet[name], rank(name)))
        return [self._entered(finding) for name in names for finding in findings if finding.name == name]

    def _entered(self, finding: Finding) -> tuple[Finding, Case]:
        case = self._case_of(finding)
        over = finding.status in ("transient", "resolved")
        last_bad = finding.opened_at + finding.length - 1 if over else finding.step
        case.seen_at = max(case.seen_at, last_bad)
        case.opened_at = min(case.opened_at, finding.opened_at)
        case.members[finding.name] = finding
        if finding.interrupts:
            if _is_news(finding, case):
                case.told.append(finding.name)
            else:
                finding = replace(finding, interrupts=False)
        return finding, case

    def _case_of(self, finding: Finding) -> Case:
        self._cases = [
            case for case in self._cases if case.is_open or finding.step - case.seen_at <= MERGE_STEPS
        ]
        for case in reversed(self._cases):
            member = case.members.get(finding.name)
            if member is not None and member.opened_at == finding.opened_at:
                return case
        # By time, not by what is still open: a lasting fault must not swallow a new one much later.
        of_machine = finding.name in MACHINE
        alike = [case for case in self._cases if case.is_of_the_machine == of_machine]
        if alike and alike[-1].reaches(finding.opened_at):
            return alike[-1]
        self._count += 1
        self._cases.append(Case(self._count, finding.opened_at, finding.step))
        return self._cases[-1]

    @property
    def youngest(self) -> int | None:
        """When the youngest open finding about the training began."""
        began = (
            member.opened_at
            for case in self._cases
            for name, member in case.members.items()
            if name not in MACHINE and member.status in ("suspected", "sustained")
        )
        return max(began, default=None)

    def state_dict(self) -> dict[str, Any]:
        return {
            "count": self._count,
            "cases": [
                {**asdict(case), "members": [_plain(finding) for finding in case.members.values()]}
                for case in self._cases
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._count = state["count"]
        self._cases = []
        for saved in state["cases"]:
            members = [Finding(**entry) for entry in saved["members"]]
            self._cases.append(Case(**{**saved, "members": {finding.name: finding for finding in members}}))


def _is_news(finding: Finding, case: Case) -> bool:
    if finding.name in case.told:
        lasts = finding.status == "sustained"
        return finding.name in GRAVE and lasts and case.told.count(finding.name) < 2
    if case.follows(finding) and finding.name not in GRAVE:
        return False
    still_said = [
        name
        for name in case.told
        if rank(name) < EXACT_RANKS or case.members[name].status in ("suspected", "sustained")
    ]
    best_told = min((rank(name) for name in still_said), default=None)
    return best_told is None or rank(finding.name) < best_told or finding.name in GRAVE


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.name,
        "status": finding.status,
        "opened_at": finding.opened_at,
        "step": finding.step,
        "length": finding.length,
        "interrupts": finding.interrupts,
        "evidence": dict(finding.evidence),
    }
