"""The numbers of a drill: how many faults were noticed and named, how soon, and at what price in false alarms."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles

from minigpt.lab.drill.baselines import BASELINES, Rule, events
from minigpt.lab.drill.judge import Hearing
from minigpt.lab.drill.scenario import Control, Fault, Scenario
from minigpt.lab.drill.trace import Trace
from minigpt.lab.drill.verdict import EVENT_STEPS, PROMPT_STEPS, Verdict, judge_fault


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded training with what the monitor and the other rules say of it."""

    scenario: Scenario
    seed: int
    steps: int
    test_loss: float
    hearing: Hearing
    alarms: dict[str, list[int]]
    """Steps at which each of the baselines speaks."""


@dataclass(frozen=True, slots=True)
class FalseAlarm:
    """An interruption of a healthy training."""

    control: str
    seed: int
    step: int
    finding: str


@dataclass(frozen=True, slots=True)
class BaselineScore:
    """One of the other rules, on the same records; any alarm counts as the right one."""

    name: str
    recall: float
    recall_prompt: float
    false_per_10k: float


@dataclass(frozen=True, slots=True)
class Score:
    """The drill in numbers; shares are 0..1, delays in steps."""

    verdicts: tuple[Verdict, ...]
    harm: dict[tuple[str, int], float]
    """Test loss at the end of the fault's training minus that of the same training without it, nats a token."""
    false_alarms: tuple[FalseAlarm, ...]
    healthy_steps: int
    """Of the controls, to which the false alarms belong."""
    twins_alarms: tuple[FalseAlarm, ...]
    """Interruptions of the faults' clean trainings: as false, but those are no hard test, so not in the rate."""
    baselines: tuple[BaselineScore, ...]
    microseconds: float
    """Mean time of one observe."""

    @property
    def recall(self) -> float:
        return _share(verdict.noticed for verdict in self.verdicts)

    @property
    def recall_prompt(self) -> float:
        return _share(verdict.prompt for verdict in self.verdicts)

    @property
    def first_right(self) -> float:
        """Of the noticed faults, those that the first words name."""
        return _share(verdict.first_right for verdict in self.verdicts if verdict.noticed)

    @property
    def final_right(self) -> float:
        return _share(verdict.final_right for verdict in self.verdicts if verdict.noticed)

    @property
    def duration_right(self) -> float:
        return _share(verdict.duration_right for verdict in self.verdicts if verdict.noticed)

    @property
    def false_per_10k(self) -> float:
        return 1e4 * len(self.false_alarms) / self.healthy_steps if self.healthy_steps else 0.0

    @property
    def false_bound_per_10k(self) -> float:
        """What zero events in so many steps can show at 95 %: no more than 3 / steps."""
        return 3e4 / self.healthy_steps if self.healthy_steps else float("inf")

    def delays(self, *, slow: bool) -> tuple[float, float] | None:
        """Median and 90th percentile; None when nothing was noticed."""
        found = [float(v.delay) for v in self.verdicts if v.delay is not None and v.slow is slow]
        if len(found) < 2:
            return (found[0], found[0]) if found else None
        tenths = quantiles(found, n=10, method="inclusive")
        return tenths[4], tenths[8]


def score(records: Sequence[Recorded], twin_of: Callable[[Fault], str]) -> Score:
    """Puts the records together; `twin_of` names the clean training of a fault."""
    ends = {(record.scenario.name, record.seed): record.test_loss for record in records}
    faulty = [(record.scenario, record) for record in records if isinstance(record.scenario, Fault)]
    healthy = [record for record in records if isinstance(record.scenario, Control)]
    twins = [record for record in records if not isinstance(record.scenario, (Control, Fault))]
    observed = sum(record.steps for record in records)
    return Score(
        verdicts=tuple(judge_fault(fault, record.seed, record.hearing) for fault, record in faulty),
        harm={
            (fault.name, record.seed): record.test_loss - ends[twin_of(fault), record.seed]
            for fault, record in faulty
            if (twin_of(fault), record.seed) in ends
        },
        false_alarms=_false_alarms(healthy),
        twins_alarms=_false_alarms(twins),
        healthy_steps=sum(record.steps for record in healthy),
        baselines=tuple(_baseline(name, faulty, healthy) for name in BASELINES),
        microseconds=1e6 * sum(record.hearing.seconds for record in records) / max(observed, 1),
    )


def _false_alarms(records: Sequence[Recorded]) -> tuple[FalseAlarm, ...]:
    return tuple(
        FalseAlarm(record.scenario.name, record.seed, told.step, told.finding)
        for record in records
        for told in record.hearing.interruptions
    )


def alarms_of(trace: Trace, rules: dict[str, Rule] | None = None) -> dict[str, list[int]]:
    """The steps at which each of the other rules speaks."""
    chosen = BASELINES if rules is None else rules
    return {name: list(rule(trace.signals)) for name, rule in chosen.items()}


def _baseline(
    name: str, faulty: Sequence[tuple[Fault, Recorded]], healthy: Sequence[Recorded]
) -> BaselineScore:
    delays = [_delay(fault, record.alarms[name]) for fault, record in faulty]
    false = sum(len(events(record.alarms[name])) for record in healthy)
    steps = sum(record.steps for record in healthy)
    return BaselineScore(
        name,
        _share(delay is not None for delay in delays),
        _share(delay is not None and delay <= PROMPT_STEPS for delay in delays),
        1e4 * false / steps if steps else 0.0,
    )


def _delay(fault: Fault, alarms: Sequence[int]) -> int | None:
    last = float("inf") if fault.lasting else fault.onset + (fault.steps_wrong or 1) - 1 + EVENT_STEPS
    return next((step - fault.onset for step in alarms if fault.onset <= step <= last), None)


def _share(facts: Iterable[bool]) -> float:
    found = list(facts)
    return sum(found) / len(found) if found else 0.0
