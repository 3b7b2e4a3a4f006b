import math
from pathlib import Path

import pytest

from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.verdicts import disagreements, verdict_claim, verdict_text
from tests.lab.experiments.made_up import outcome

FALLING = [5.0 - 0.1 * step for step in range(40)]


def test_run_that_learns_has_not_blown_up() -> None:
    assert outcome(FALLING).blew_up is None


def test_run_has_blown_up_when_its_smoothed_loss_rises_by_a_nat() -> None:
    risen = [*FALLING, *[2.5] * 10]
    barely = [*FALLING, *[2.4] * 10]

    # The mean of the last ten of FALLING, steps 30 to 39, is 1.55.
    assert outcome(FALLING).smoothed[-1] == pytest.approx(1.55)
    assert outcome(risen).blew_up is None
    assert outcome([*FALLING, *[2.56] * 10]).blew_up == "rose"
    assert outcome(barely).blew_up is None


def test_one_bad_batch_is_no_blow_up() -> None:
    assert outcome([*FALLING, 6.0, *[1.1] * 10]).blew_up is None


def test_run_has_blown_up_when_something_was_not_finite() -> None:
    assert outcome([*FALLING, math.nan]).blew_up == "not finite"
    assert outcome(FALLING, skipped_steps=(7,)).blew_up == "not finite"
    assert outcome(FALLING, stopped=True).blew_up == "not finite"


def test_overflow_that_the_scaler_answers_is_no_blow_up() -> None:
    assert outcome(FALLING, skipped_steps=(1, 2), scaler_steps=(1, 2)).blew_up is None


def test_final_loss_is_the_mean_of_the_last_twentieth() -> None:
    assert outcome([9.0] * 38 + [1.0, 2.0]).final_loss == pytest.approx(1.5)
    assert math.isnan(outcome([9.0] * 39 + [math.nan]).final_loss)


def test_steps_to_a_loss_count_to_the_end_of_the_smoothing_window() -> None:
    steps = outcome([3.0] * 10 + [1.0] * 20).steps_to(1.0)

    assert steps == 20
    assert outcome([3.0] * 30).steps_to(1.0) is None


def test_run_that_ends_at_the_frequencies_loss_has_learnt_nothing() -> None:
    assert outcome([4.95] * 40, unigram_loss=5.0).learnt_nothing
    assert not outcome([4.8] * 40, unigram_loss=5.0).learnt_nothing
    assert not outcome([4.95] * 40, unigram_loss=5.0, stopped=True).learnt_nothing


def test_outcome_is_read_as_it_was_saved(tmp_path: Path) -> None:
    saved = outcome([2.0, math.nan], skipped_steps=(2,), before={"x": [1.0, None]}, findings=("nan_loss",))
    saved.save(tmp_path / "outcome.json")

    assert Outcome.load(tmp_path / "outcome.json") == saved


@pytest.mark.parametrize(
    ("blown", "health", "fits"),
    [(True, "sick", True), (True, "watch", False), (False, "sick", False), (False, "healthy", True)],
)
def test_verdict_fits_when_just_the_blown_up_are_sick(blown: bool, health: str, fits: bool) -> None:
    one = outcome(FALLING, stopped=blown, health=health, findings=("loss_divergence",))

    found = disagreements([one])

    assert (not found) == fits
    if not fits:
        assert f"was called {health}: loss_divergence" in found[0]


def test_verdict_fits_when_a_run_that_learnt_nothing_is_not_called_healthy() -> None:
    assert disagreements([outcome([9.0] * 40)]) == ["an arm, seed 0, learnt nothing and was called healthy"]
    assert not disagreements([outcome([9.0] * 40, health="watch"), outcome([9.0] * 40, health="sick")])


@pytest.mark.parametrize(("final", "health", "fits"), [
    (8.86, "healthy", True), (8.86, "sick", True), (8.94, "sick", True), (8.94, "healthy", True),
    (8.96, "healthy", False), (8.96, "sick", True), (8.84, "sick", False), (8.84, "healthy", True),
])  # fmt: skip
def test_either_verdict_fits_a_run_that_ended_near_the_line(final: float, health: str, fits: bool) -> None:
    """Which is at 8.9, a tenth below the 9 of the tokens' frequencies."""
    one = outcome([final] * 40, health=health)
    assert bool(disagreements([one])) != fits
    claim = verdict_claim({"": [one, outcome(FALLING)]})
    assert claim.held == ("held" if fits else "did not hold")
    assert ("1 more ended within 0.05 nats" in claim.found) == (8.85 < final < 8.95)


def test_runs_that_are_all_too_short_to_learn_anything_tell_nothing() -> None:
    short = [outcome([8.96] * 40), outcome([9.2] * 40, health="sick")]
    assert verdict_claim({"": short}).held == "cannot be told"
    assert "too short to tell" in verdict_claim({"": short}).found
    claim = verdict_claim({"": [*short, outcome(FALLING, stopped=True, health="sick")]})
    assert (claim.held, claim.found[:14]) == ("held", "1 of 1 right. ")


def test_a_broken_run_near_the_line_is_in_no_doubt() -> None:
    blown = outcome([8.9] * 40, stopped=True)
    assert disagreements([blown]) == ["an arm, seed 0, blew up (not finite) and was called healthy"]


def test_verdict_text_counts_and_names_the_most_frequent() -> None:
    found = [
        outcome(FALLING),
        outcome(FALLING, health="sick", findings=("nan_loss",)),
        outcome(FALLING, health="sick", findings=("loss_spike", "nan_loss")),
    ]

    assert verdict_text(found) == "1 healthy, 2 sick (nan_loss, loss_spike)"
