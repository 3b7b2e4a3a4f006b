from pathlib import Path

import pytest

from minigpt.lab.time_to_loss.curve import Curve, mean_and_spread, seconds_to
from minigpt.lab.time_to_loss.table import Bout, ablation_report, report


def curve(recipe: str, steps: int, loss: float, pace: float = 0.5, seed: int = 0) -> Curve:
    return Curve(recipe, seed, steps, 100, (pace, pace, 9 * pace), ((steps // 2, loss + 1), (steps, loss)))


def test_pace_is_the_median_and_seconds_are_those_of_all_steps_at_it() -> None:
    one = curve("x", 200, 3.0)
    assert (one.pace, one.seconds, one.final_loss) == (0.5, 100.0, 3.0)


def test_curve_comes_back_the_same_from_a_file(tmp_path: Path) -> None:
    one = curve("x", 200, 3.0)
    one.save(tmp_path / "curve.json")
    assert Curve.load(tmp_path / "curve.json") == one


@pytest.mark.parametrize(
    ("loss", "seconds"), [(3.0, 20.0), (3.5, 15.0), (2.5, 30.0), (2.9, None), (4.5, None), (4.0, None)]
)
def test_seconds_to_a_loss_lie_between_the_trainings_around_it(loss: float, seconds: float | None) -> None:
    finals = [(30.0, 2.5), (10.0, 4.0), (20.0, 3.0)]
    found = seconds_to(loss, finals[1:] if loss == 2.9 else finals)
    assert found == (seconds if seconds is None else pytest.approx(seconds))


def test_spread_is_half_the_distance_between_the_extremes() -> None:
    assert mean_and_spread([1.0, 2.0, 6.0]) == (3.0, 2.5)


def test_report_says_how_much_of_the_peers_time_it_took() -> None:
    bouts = [
        Bout(
            curve("nanogpt", 100, 3.0, 1.0, seed),
            (curve("a", 50, loss, 0.5, seed), curve("a", 100, 2.0, 0.5, seed)),
        )
        for seed, loss in ((0, 3.5), (1, 2.9))
    ]
    text = "\n".join(report(bouts[:1], 1 / 3))
    # 3.0 lies a third of the way from 3.5 (25 s) to 2.0 (50 s).
    assert "time to the peer's final loss over the peer's: 0.333 +- 0.000" in text
    assert "steps a second over the peer's: 2.000" in text
    assert "a, 50 steps: in 0.250 +- 0.000 of the peer's time, loss minus the peer's: +0.5000" in text
    assert "reached within 0.333 of the peer's time: 0 of 1 seeds" in text
    text = "\n".join(report(bouts, 1 / 3))
    assert "reached within 0.333 of the peer's time: 1 of 2 seeds" in text
    # One seed was there already with its shortest training: no figure that says less than the truth.
    assert "time to the peer's final loss" not in text


def test_ablation_compares_seed_by_seed() -> None:
    base = [curve("preset", 100, 3.0, 1.0), curve("preset", 100, 3.2, 2.0, 1)]
    worse = [curve("x", 100, 3.1, 1.1), curve("x", 100, 3.3, 2.2, 1)]
    text = "\n".join(ablation_report(base, [worse]))
    assert "loss 3.1000 +- 0.1000" in text
    assert "+0.1000 +- 0.000" in text
    assert "x 1.100 +- 0.000" in text
