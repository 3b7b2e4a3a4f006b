import math
from pathlib import Path

import pytest

from minigpt.lab.experiments.stability import (
    ALL,
    CLIPPING,
    EXPERIMENT,
    NONE,
    WARMUP,
    claims,
    tables,
    target_loss,
)
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
