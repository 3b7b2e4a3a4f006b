from dataclasses import replace
from math import nan

import pytest

from minigpt.lab.drill.baselines import BASELINES, events
from minigpt.lab.drill.judge import Hearing, Told
from minigpt.lab.drill.scenario import Fault
from minigpt.lab.drill.verdict import judge_fault
from minigpt.training_monitor.signals import StepSignals

LASTING = Fault(name="f", onset=100, labels=("no_update", "step_not_called"), symptoms=("loss_plateau",))
BRIEF = Fault(name="f", onset=100, lasting=False, steps_wrong=1, labels=("loss_spike",))


def told(
    step: int, finding: str, status: str = "sustained", *, interrupts: bool = True, incident: int = 1,
    opened_at: int | None = None, cause: str = "",
) -> Told:  # fmt: skip
    causes = (cause,) if cause else ()
    return Told(step, finding, status, interrupts, incident, opened_at or step, causes)


def hearing(*all_told: Told) -> Hearing:
    return Hearing(all_told, steps=300, seconds=0.0)


def test_fault_is_noticed_and_named_when_the_right_finding_interrupts() -> None:
    verdict = judge_fault(LASTING, 0, hearing(told(103, "no_update")))
    assert (verdict.noticed, verdict.delay, verdict.first_right, verdict.final_right) == (True, 3, True, True)
    assert verdict.duration_right


def test_fault_is_noticed_but_not_named_when_only_a_symptom_interrupts() -> None:
    verdict = judge_fault(LASTING, 0, hearing(told(150, "loss_plateau")))
    assert (verdict.noticed, verdict.first_right, verdict.final_right) == (True, False, False)


def test_cause_counts_as_much_as_the_finding() -> None:
    verdict = judge_fault(LASTING, 0, hearing(told(150, "loss_plateau", cause="step_not_called")))
    assert verdict.first_right
    assert verdict.final_right


def test_last_word_counts_for_itself_when_a_better_explanation_joins() -> None:
    verdict = judge_fault(LASTING, 0, hearing(told(110, "loss_plateau"), told(120, "no_update")))
    assert (verdict.delay, verdict.first_right, verdict.final_right) == (10, False, True)


@pytest.mark.parametrize(
    "said",
    [
        (),
        (told(103, "no_update", interrupts=False),),
        (told(103, "throughput_drop"),),
        (told(99, "no_update"),),
        (told(110, "no_update", opened_at=60),),
    ],
    ids=["silence", "quiet event", "another matter", "too early", "opened before"],
)
def test_lasting_fault_is_missed_when(said: tuple[Told, ...]) -> None:
    assert not judge_fault(LASTING, 0, hearing(*said)).noticed


def test_brief_fault_needs_only_an_event_and_soon() -> None:
    quiet = told(101, "loss_spike", "suspected", interrupts=False)
    over = told(102, "loss_spike", "transient", interrupts=False, opened_at=101)
    verdict = judge_fault(BRIEF, 0, hearing(quiet, over))
    assert verdict.noticed
    assert verdict.duration_right
    assert not judge_fault(BRIEF, 0, hearing(told(104, "loss_spike", "suspected"))).noticed


def test_quiet_event_is_enough_where_the_fault_says_so() -> None:
    quiet = told(180, "no_update", "suspected", interrupts=False)
    assert judge_fault(replace(LASTING, event_is_enough=True), 0, hearing(quiet)).noticed


def test_brief_fault_is_misjudged_when_it_is_told_as_lasting() -> None:
    verdict = judge_fault(BRIEF, 0, hearing(told(101, "loss_spike", "suspected"), told(109, "loss_spike")))
    assert verdict.noticed
    assert not verdict.duration_right


def alarms(rule: str, losses: list[float], norms: list[float]) -> list[int]:
    pairs = zip(losses, norms, strict=True)
    steps = [StepSignals(step, loss, norm) for step, (loss, norm) in enumerate(pairs, start=1)]
    return list(BASELINES[rule](steps))


def test_baselines_speak_when_their_rule_says_so() -> None:
    losses, norms = [3.0, 3.1] * 50, [1.0, 1.1] * 50
    assert all(alarms(rule, losses, norms) == [] for rule in BASELINES)
    assert alarms("norm < 1e-6", [3.0, 3.0], [1.0, 1e-7]) == [2]
    assert alarms("check_finite", [3.0, nan], [1.0, 1.0]) == [2]
    assert alarms("3 sigma / 128 on norm", [*losses, 3.0], [*norms, 1.25]) == [101]
    assert alarms("OLMo 6 sigma / 128", [*losses, 3.4], [*norms, 1.0]) == [101]


def test_events_are_rows_of_alarms() -> None:
    assert events([5, 6, 7, 20, 22]) == [5, 20, 22]
