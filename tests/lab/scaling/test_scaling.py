import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from minigpt.errors import ConfigError
from minigpt.lab.bench.shapes import SHAPES
from minigpt.lab.bench.summary import Spread
from minigpt.lab.scaling import measure
from minigpt.lab.scaling.command import run
from minigpt.lab.scaling.measure import TURN, measure_long_run, measure_series
from minigpt.lab.scaling.report import drift, long_run_text, plot, series_text
from minigpt.lab.scaling.series import Series, all_series, costs, flops_of
from tests.lab.bench.tiny_terms import tiny_terms

SERIES = Series("depth (layers)", (SHAPES["tiny"], SHAPES["tiny"]), (2, 4))
COSTS = costs((2, 4), (100, 400), (Spread(2e-6, 1e-6, 3e-6), Spread(4e-6, 4e-6, 5e-6)))


def silent(line: str) -> None:
    pass


def test_cost_is_predicted_from_the_largest_shapes_pace() -> None:
    # 400 FLOPs in 4 us are 1e-8 s each, so 100 should take 1 us and took 2.
    assert [cost.predicted_seconds_per_token for cost in COSTS] == pytest.approx([1e-6, 4e-6])
    assert [cost.over_predicted for cost in COSTS] == pytest.approx([2, 1])


def test_series_table_shows_measured_beside_predicted() -> None:
    text = series_text(SERIES, COSTS)
    assert "| 2              | 0.0            | 2.0 (1.0 to 3.0) | 1.0       | 2.00 " in text


@pytest.mark.parametrize(
    ("seconds", "ratio"),
    [([1, 1, 1, 1, 1, 1, 1, 1], 1), ([1, 3, 9, 9, 9, 9, 4, 8], 3), ([2, 1], 0.5), ([5], 1)],
)
def test_drift_is_the_last_quarter_over_the_first(seconds: list[float], ratio: float) -> None:
    assert drift(seconds) == ratio


def test_long_run_text_names_first_and_last() -> None:
    text = long_run_text([0.010, 0.011, 0.012, 0.0125])
    assert f"Over {4 * TURN} steps" in text
    assert "first 100 steps: 10.00 ms a step; last 100: 12.50 ms = 1.250 x" in text


def test_series_vary_one_number_each_at_as_many_tokens_a_step() -> None:
    depth, width, context = all_series((2, 4), (128, 256), (64, 1024))
    assert [shape.num_layers for shape in depth.shapes] == [2, 4]
    assert [(shape.hidden_size, shape.num_heads) for shape in width.shapes] == [(128, 2), (256, 4)]
    assert [shape.context_length for shape in context.shapes] == [64, 1024]
    assert {shape.tokens_per_step for one in (depth, width, context) for shape in one.shapes} == {4096}


def test_flops_double_with_depth_but_for_the_head() -> None:
    (two, four) = all_series((2, 4), (256,), (256,))[0].shapes
    head = 6 * 4096 * 256
    assert flops_of(four) - head == 2 * (flops_of(two) - head)


def test_real_runs_are_measured_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "TURN", 5)
    terms = tiny_terms(tmp_path)
    seconds = measure_long_run(terms, 10, threads=1, folder=tmp_path / "long", say=silent)
    assert len(seconds) == 2
    series = Series("depth (layers)", (replace(SHAPES["tiny"], num_layers=1),), (1,))
    (cost,) = measure_series(
        series, terms, rounds=2, steps=1, threads=1, folder=tmp_path / "series", say=silent
    )
    assert 0 < cost.seconds_per_token.low <= cost.seconds_per_token.high
    assert cost.over_predicted == 1


@pytest.mark.filterwarnings("default")  # matplotlib's own
def test_plot_is_drawn_in_the_format_of_its_suffix(tmp_path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("needs matplotlib")
    path = tmp_path / "scaling.svg"
    plot(path, [0.01, 0.011], [(SERIES, COSTS)])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<?xml")
    # Two panels.
    assert 'id="axes_2"' in text
    assert 'id="axes_3"' not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--long-run", "100"], "--long-run 100: too short to compare; use 200 or more"),
        (["--steps", "0"], "--steps 0: too few"),
        (["--widths", "128", "100"], "--widths 100: cannot be; use a multiple of 64"),
        (["--output", "nowhere/x.json"], "--output nowhere/x.json: no file can be written there"),
        (["--plot", "x.txt"], "ends in .svg, .png or .pdf"),
    ],
)
def test_mistake_is_refused_before_anything_is_measured(arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", "\\(")):
        run(arguments, "")
