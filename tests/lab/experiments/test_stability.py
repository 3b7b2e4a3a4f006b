import math
from pathlib import Path

import pytest

from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.stability import EXPERIMENT, tables
from minigpt.lab.experiments.stability_claims import ALL, CLIPPING, NONE, WARMUP, claims, target_loss
from tests.lab.experiments.made_up import outcome
from tests.lab.experiments.short_form import short_results

GOOD = [5.0 - 0.1 * step for step in range(40)]
BLOWN = [*GOOD, math.nan]


def results(blown: dict[str, int]) -> dict[str, list]:  # type: ignore[type-arg]
    """Ten runs of each arm, so many of them blown up and called sick."""
    return {
        name: [
            outcome(BLOWN if seed < blown[name] else GOOD, arm=name, seed=seed,
                    health="sick" if seed < blown[name] else "healthy")
            for seed in range(10)
        ]
        for name in (NONE, CLIPPING, WARMUP, ALL)
    }  # fmt: skip


def test_claims_hold_when_the_counts_are_those_of_the_users_table() -> None:
    found = claims(results({NONE: 8, CLIPPING: 2, WARMUP: 0, ALL: 0}))

    assert [claim.held for claim in found[:4]] == ["held"] * 4
    assert found[-1].held == "held"


def test_claims_do_not_hold_when_the_counts_are_others() -> None:
    found = claims(results({NONE: 0, CLIPPING: 10, WARMUP: 10, ALL: 10}))

    assert [claim.held for claim in found[:4]] == ["did not hold"] * 4
    assert found[0].found == "0/10 (0-28 %) did; 0/10 (0-28 %) did or learnt nothing."


def test_claims_hold_in_part_when_runs_fail_in_another_way() -> None:
    stuck = [outcome([8.95] * 40, arm="", seed=seed, health="sick") for seed in range(6)]
    good = [outcome(GOOD, seed=seed) for seed in range(6, 10)]

    found = claims({NONE: [*stuck, *good], WARMUP: [*stuck, *good]})

    # None blew up, six of ten learnt nothing: nearer to 8 of 10 than the blow-ups are, and no longer 0 of 10.
    assert [claim.held for claim in found[:2]] == ["held in part", "held in part"]


def test_two_runs_tell_nothing() -> None:
    assert claims({NONE: [outcome(GOOD, seed=seed) for seed in range(2)]})[0].held == "cannot be told"


def test_monitor_is_wrong_when_blown_up_runs_are_called_healthy() -> None:
    wrong = {name: [outcome(BLOWN, arm=name)] for name in (NONE, CLIPPING, WARMUP, ALL)}

    assert claims(wrong)[-1].held == "did not hold"


def falling(arm: str, step: float, norms: tuple[float, ...]) -> list[Outcome]:
    """Three runs whose loss falls to 4 by so much a step and whose gradient has these norms, a little luck in each."""
    return [
        outcome(
            [max(4.0, 5.0 - step * at) for at in range(40)],
            arm=arm,
            seed=seed,
            grad_norms=tuple(norm * (1 + 0.01 * seed) for norm in norms),
        )
        for seed in range(3)
    ]


def test_time_peaks_and_variance_are_compared_seed_by_seed() -> None:
    rough, smooth = (1.0, 40.0) * 20, (1.0, 2.0) * 20
    found = {
        NONE: falling(NONE, 0.05, rough),
        CLIPPING: falling(CLIPPING, 0.05, smooth),
        ALL: falling(ALL, 0.1, smooth),
    }
    held = {claim.text.partition(",")[0]: claim for claim in claims(found)}
    time = held["with everything training takes 7 hours"]
    assert (time.held, "steps to 4.00" in time.found) == ("held", True)
    peaks = held["clipping brings the peaks of the gradient down by 90 %"]
    # 40 to 2.
    assert (peaks.held, ": 20 (" in peaks.found) == ("held", True)
    waves = held["Pre-Norm"]
    # Around means of 20.5 and 1.5: 19.5 and .5, squared.
    assert (waves.held, ": 1.52e+03 (" in waves.found) == ("held", True)

    same = {name: falling(name, 0.05, smooth) for name in (NONE, CLIPPING, ALL)}
    assert [claim.held for claim in claims(same)[4:7]] == ["did not hold"] * 3
    half = {**same, NONE: falling(NONE, 0.05, (1.0, 4.0) * 20)}
    # Twice the peak is not ten times; nine times the variance is all that is claimed.
    assert [claim.held for claim in claims(half)[5:7]] == ["held in part", "held"]


def test_target_is_what_the_worst_arm_ends_with_where_it_trained() -> None:
    # Ends at 5 - .1 x 39 = 1.1; the last twentieth are two steps, at 1.2 and 1.1.
    found = {"worse": [outcome([2.0] * 40)], "better": [outcome(GOOD)], "blown": [outcome(BLOWN)]}
    found["stuck"] = [outcome([9.0] * 40)]

    assert target_loss(found) == pytest.approx(2.0)


def test_short_form_trains_every_arm_and_learns_most_with_everything(tmp_path: Path) -> None:
    found = short_results(EXPERIMENT, tmp_path, seeds=1)

    assert list(found) == [NONE, CLIPPING, WARMUP, ALL]
    assert all(len(runs) == 1 for runs in found.values())
    assert found[ALL][0].blew_up is None
    assert found[ALL][0].final_loss < found[ALL][0].losses[0] - 1  # type: ignore[operator]
    assert found[ALL][0].health == "healthy"
    assert len(tables(found)[0].rows) == 4
