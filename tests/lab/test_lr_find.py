import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from minigpt.config.load import load_config
from minigpt.errors import ConfigError
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.places import path_overrides
from minigpt.lab.lr_find.confirm import (
    Tried,
    beyond,
    claim_of,
    difference,
    table_of,
    to_try,
    trials,
    whole_overrides,
)
from minigpt.lab.lr_find.find import MOST_TRIED, lr_find
from minigpt.lab.lr_find.rule import averaged, half_window, suggest
from minigpt.lab.lr_find.sweep import Sweep, has_diverged, ramp
from tests.lab.experiments.made_up import outcome
from tests.training.tiny_run import Workshop


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread: so small a model only loses by more."""
    threads = torch.get_num_threads()
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def straight(*corners: tuple[float, float], steps: int = 121) -> Sweep:
    """Losses along straight lines between corners (log10 of the rate, loss), from 1e-5 to 1."""
    rates = ramp(1e-5, 1.0, steps)
    losses = []
    for rate in rates:
        at = math.log10(rate)
        left = max((corner for corner in corners if corner[0] <= at + 1e-9), key=lambda corner: corner[0])
        right = min((corner for corner in corners if corner[0] > at + 1e-9), default=left)
        share = 0.0 if right == left else (at - left[0]) / (right[0] - left[0])
        losses.append(left[1] + share * (right[1] - left[1]))
    return Sweep(tuple(rates), tuple(losses))


def ended(rate: str, seed: int, final: float | None) -> Outcome:
    return outcome([final], arm=f"lr {rate}", seed=seed)


def test_ramp_multiplies_by_the_same_factor() -> None:
    assert ramp(1e-3, 1e-1, 3) == pytest.approx([1e-3, 1e-2, 1e-1])


def test_divergence_is_a_loss_that_is_not_finite_or_a_mean_that_rose_a_nat() -> None:
    assert not has_diverged([])
    assert has_diverged([7.0, None])
    assert not has_diverged([*[5.0] * 10, 14.0])  # a mean of ten: 5.9
    assert has_diverged([*[5.0] * 10, 16.0])  # 6.1


def test_losses_are_averaged_over_a_sixth_of_a_decade_to_either_side() -> None:
    rates = tuple(10 ** (step / 12) for step in range(5))
    assert half_window(rates) == 2
    assert averaged(Sweep(rates, (1.0, 2.0, 3.0, 4.0, None))) == [2.0, 2.5, 2.5, 3.0, math.inf]


def test_suggestion_is_a_third_of_the_first_low_even_where_the_loss_falls_lower_later() -> None:
    found = suggest(straight((-5, 7.0), (-4, 7.0), (-2, 5.0), (-1.5, 6.0), (-0.7, 4.0), (0, 9.0)))
    assert found.edge == pytest.approx(1e-2, rel=0.2)
    assert found.rate == pytest.approx(1e-2 / 3, rel=0.2)
    assert found.steepest is not None
    assert 1e-4 < found.steepest < 1e-2
    assert found.rose
    assert found.caveat is None


def test_ripple_below_a_twentieth_of_the_fall_is_no_edge() -> None:
    # 0.08 nats up on the way down, of a fall of 2.
    found = suggest(straight((-5, 7.0), (-4, 7.0), (-3, 6.0), (-2.5, 6.08), (-1.5, 5.0), (-1, 6.0), (0, 8.0)))
    assert found.edge == pytest.approx(10**-1.5, rel=0.3)


def test_caveat_where_the_loss_never_rose_and_no_rate_where_it_never_fell() -> None:
    falling = suggest(straight((-5, 7.0), (0, 5.0)))
    assert falling.rate == 0.33
    assert not falling.rose
    assert "raise --to" in (falling.caveat or "")
    flat = suggest(straight((-5, 7.0), (0, 7.0)))
    assert flat.rate is None
    assert "never fell" in (flat.caveat or "")


def test_a_loss_that_is_not_finite_counts_as_a_rise() -> None:
    sweep = straight((-5, 7.0), (0, 5.0))
    found = suggest(Sweep(sweep.rates[:100], (*sweep.losses[:99], None)))
    assert found.rose
    assert found.edge == sweep.rates[98]


def test_rates_that_are_tried_are_each_tried_once() -> None:
    assert to_try(4e-3, 1e-2) == [
        Tried(1e-3, "suggestion / 4"),
        Tried(4e-3, "suggestion"),
        Tried(1e-2, "configured"),
        Tried(1.6e-2, "suggestion x 4"),
    ]
    assert to_try(4e-3, 4.1e-3)[1] == Tried(4e-3, "suggestion, configured")
    assert to_try(None, 1e-2) == [Tried(1e-2, "configured")]


@pytest.mark.parametrize(
    ("finals", "further"),
    [
        ((5.0, 4.0, 4.5), None),
        ((3.0, 4.0, 4.5), Tried(2.5e-4, "further down")),
        ((5.0, 4.0, 3.5), Tried(6.4e-2, "further up")),
        ((None, 4.0, None), None),
        ((4.0, None, None), Tried(2.5e-4, "further down")),
        ((None, None, None), Tried(2.5e-4, "further down")),
    ],
)
def test_trainings_go_on_where_the_best_is_the_last_on_its_side(
    finals: tuple[float | None, ...], further: Tried | None
) -> None:
    tried = [Tried(1e-3, "suggestion / 4"), Tried(4e-3, "suggestion"), Tried(1.6e-2, "suggestion x 4")]
    results = {
        one.name: [ended(one.name, seed, final) for seed in range(2)]
        for one, final in zip(tried, finals, strict=True)
    }
    assert beyond(tried, results) == further


def test_overrides_of_the_trials_make_the_whole_configuration(tmp_path: Path) -> None:
    config = Workshop.set_up(tmp_path).config("optimizer.betas=[0.8,0.9]", "training.max_grad_norm=null")
    assert load_config("small", whole_overrides(config)).config == config


def test_relative_paths_are_those_of_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config("small", ('data.source=["texts/", "python-stdlib"]', "data.cache_dir=cache")).config
    absolute = load_config("small", path_overrides(config)).config.data
    assert absolute.source == [str(tmp_path / "texts"), "python-stdlib"]
    assert absolute.cache_dir == str(tmp_path / "cache")
    assert path_overrides(load_config("small").config) == ()
    assert path_overrides(load_config("small", ("data.source=hf:someone/texts",)).config) == ()


def test_trainings_have_the_warm_up_in_proportion_and_a_seed_each(tmp_path: Path) -> None:
    # 4 of 12 steps.
    config = Workshop.set_up(tmp_path).config("training.seed=5")
    made = trials(config, to_try(None, 1e-2), tmp_path / "out", steps=6, seeds=2, threads=1)
    found = [load_config("small", trial.overrides).config for trial in made]
    assert [one.training.seed for one in found] == [5, 6]
    assert {(one.training.max_steps, one.schedule.warmup_steps) for one in found} == {(6, 2)}


@pytest.mark.parametrize(
    ("others", "held"),
    [
        ((5.0, 5.1), "held"),
        ((3.0, 3.1), "did not hold"),
        ((5.0, 3.1), "cannot be told"),
        ((5.0,), "cannot be told"),
        ((5.0, None), "held"),
        ((None, None), "held"),
    ],
)
def test_claim_is_that_the_suggestion_is_the_best(others: tuple[float | None, ...], held: str) -> None:
    tried = [Tried(1e-3, "suggestion"), Tried(4e-3, "suggestion x 4")]
    results = {
        "lr 1e-3": [ended("1e-3", seed, 4.0 + 0.1 * seed) for seed in range(len(others))],
        "lr 4e-3": [ended("4e-3", seed, loss) for seed, loss in enumerate(others)],
    }
    claim = claim_of(tried, results)
    assert claim is not None
    assert claim.held == held
    assert len(table_of(tried, results).rows) == 2


def test_difference_where_one_or_both_are_not_finite() -> None:
    finite, blown = [ended("1e-3", 0, 4.0)], [ended("1e-3", 0, None)]
    assert difference(blown, finite).value == math.inf
    assert difference(finite, blown).value == -math.inf
    assert math.isnan(difference(blown, blown).value) or difference(blown, blown).value == 0


def test_whole_of_it_on_a_tiny_model_is_read_again_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = Workshop.set_up(tmp_path)
    monkeypatch.chdir(tmp_path)
    folder, said = tmp_path / "out", list[str]()
    here = sorted(tmp_path.iterdir())
    overrides = ("data.source=corpus",)  # as seen from the user's folder, wherever the trainings run
    for _ in range(2):
        report = lr_find(
            workshop.config_path,
            overrides,
            folder,
            from_=1e-4,
            steps=60,
            seeds=1,
            confirm_steps=8,
            processes=1,
            progress=said.append,
        )
        written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
        said.append("--")
    assert said[said.index("--") + 1] == "range test: done before, read again"
    assert written == {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    assert set(tmp_path.iterdir()) - set(here) <= {folder, tmp_path / "cache"}
    # Bytes of twenty words: a rate of 1e-4 teaches nothing in a few steps, and one a hundred times as high does.
    assert report.suggestion.rate is not None
    assert report.suggestion.rate > 1e-4
    assert report.claim is not None
    assert "Suggested: optimizer.learning_rate = " in report.markdown()
    pytest.importorskip("matplotlib").use("Agg")
    report.save(folder)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["suggestion"]["rate"] == report.suggestion.rate
    assert len((folder / "table.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(report.tried)
    assert len((folder / "range_test.csv").read_text("utf-8").splitlines()) == 1 + len(report.sweep.losses)
    assert (folder / "plot.png").stat().st_size > 0
    # Either the best lies between two others, or it was followed as far as it goes.
    assert report.tried == tuple(sorted(report.tried, key=lambda one: one.rate))
    assert beyond(report.tried, report.results) is None or len(report.tried) == MOST_TRIED


def test_range_test_is_done_again_for_another_question(tmp_path: Path) -> None:
    workshop, said = Workshop.set_up(tmp_path), list[str]()
    for overrides in ((), ("model.hidden_size=32",)):
        lr_find(
            workshop.config_path, overrides, tmp_path / "out", steps=20, seeds=0, progress=said.append
        ).markdown()
    assert "range test: done before, read again" not in said


@pytest.mark.parametrize(
    ("asked", "named"),
    [({"from_": 1.0, "to": 0.1}, "--from"), ({"steps": 5}, "--steps"), ({"seeds": -1}, "--seeds")],
)
def test_what_cannot_be_is_refused(tmp_path: Path, asked: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        lr_find("small", (), tmp_path, **asked)  # type: ignore[arg-type]
