"""The arithmetic of the tables, on figures that a head can check."""

import math
from dataclasses import replace

import pytest

from minigpt.errors import ConfigError
from minigpt.lab.bench.contenders import contender
from minigpt.lab.bench.match import Entry, Match
from minigpt.lab.bench.shapes import PRESETS, SHAPES, Terms, shape_named
from minigpt.lab.bench.summary import (
    as_json,
    best_peer,
    doubts,
    mfu,
    ratios,
    share_of_ceiling,
    tokens_per_second,
)
from minigpt.lab.bench.table import report

CHANCE = math.log(320)
FALLING = [CHANCE - 0.1 * step for step in range(12)]


def entry(spec: str, seconds: list[float], losses: list[float] | None = None) -> Entry:
    return Entry(
        contender(spec), 2_000_000, 1000, 320, "", 3.0, losses or list(FALLING), seconds, peak_bytes=2**30
    )


def match_of(*entries: Entry, ceilings: tuple[float, ...] = (1e6, 1e6, 1e6)) -> Match:
    """On the tiny shape: 128 tokens a step."""
    return Match(Terms(SHAPES["tiny"]), 4, list(entries), list(ceilings))


OURS = entry("minigpt", [0.25, 0.5, 0.125])
SLOW, FAST = entry("nanogpt", [0.5, 0.5, 0.5]), entry("hf", [0.25, 0.5, 0.25])


def test_figures_are_taken_within_a_round() -> None:
    match = match_of(OURS, SLOW, FAST)
    assert tokens_per_second(match, OURS) == [512, 256, 1024]
    assert ratios(match, OURS, SLOW) == [2, 1, 4]
    # 1000 FLOPs a token, a ceiling of a million a second.
    assert share_of_ceiling(match, OURS) == pytest.approx([0.512, 0.256, 1.024])
    assert best_peer(match) is FAST
    assert best_peer(match_of(OURS)) is None


def test_report_shows_medians_spreads_and_the_best_peer() -> None:
    text = report(match_of(OURS, SLOW, FAST))
    assert "| minigpt   | 512 (384 to 768) | 0.51 (0.38 to 0.77) | 3.0 s " in text
    assert "| times as fast as | nanogpt                | hf (best)              |" in text
    assert "| minigpt          | 2.000 (1.500 to 3.000) | 1.000 (1.000 to 1.500) |" in text
    assert "128 tokens a step" in text
    assert "DOUBT" not in text


def test_mfu_is_shown_when_the_devices_peak_is_known() -> None:
    match = match_of(OURS, SLOW)
    assert mfu(match, OURS) is None
    assert "MFU" not in report(match)
    known = replace(match, peak_flops=2e6)
    assert mfu(known, OURS) == [0.256, 0.128, 0.512]
    assert "| 0.256 (0.192 to 0.384) |" in report(known)


def test_report_has_no_ratios_when_nothing_was_timed() -> None:
    text = report(match_of(entry("minigpt", []), entry("hf", []), ceilings=()))
    assert "times as fast" not in text
    assert "| minigpt   | -        | -              | 3.0 s " in text


def test_report_compares_two_minigpts_when_there_is_no_peer() -> None:
    text = report(match_of(OURS, entry("minigpt:model.qk_norm=true", [0.5, 1.0, 0.25])))
    assert "| minigpt:model.qk_norm=true | 0.500 (0.500 to 0.500) |" in text


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([9.0, *FALLING[1:]], "first loss 9.00 is not near ln V = 5.77"),
        ([CHANCE] * 12, "does not fall"),
        ([*FALLING[:-1], math.nan], "not finite"),
    ],
)
def test_doubt_is_raised_when_a_contender_does_not_learn(losses: list[float], said: str) -> None:
    (line,) = doubts(match_of(OURS, entry("hf", [1, 1, 1], losses)))
    assert line.startswith("hf: ")
    assert said in line


def test_doubt_is_raised_when_the_machine_was_not_quiet() -> None:
    assert doubts(match_of(OURS, ceilings=(1e12, 1.1e12, 1.05e12))) == []
    (line,) = doubts(match_of(OURS, ceilings=(1e12, 1.4e12, 1.05e12)))
    assert "not quiet" in line
    assert "from 1,000 to 1,400 GFLOP/s" in line


def test_json_has_the_ratio_to_every_other_contender() -> None:
    first = as_json(match_of(OURS, SLOW, FAST))["contenders"][0]
    assert first["ratio_to"] == {"nanogpt": [2, 1, 4], "hf": [1, 1, 2]}
    assert first["seconds_per_step"] == [0.25, 0.5, 0.125]


def test_terms_survive_json() -> None:
    terms = replace(Terms(SHAPES["medium"]), betas=(0.8, 0.9))
    assert Terms.from_json(terms.to_json()) == terms


def test_learning_rate_warms_up_and_stays() -> None:
    terms = Terms(SHAPES["tiny"], learning_rate=1.0, warmup_steps=4)
    assert [terms.lr_at(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_free_shape_has_heads_of_64_and_4096_tokens_a_step() -> None:
    shape = shape_named("8x512@256/8192")
    assert (shape.num_layers, shape.hidden_size, shape.num_heads) == (8, 512, 8)
    assert (shape.context_length, shape.vocab_size, shape.tokens_per_step) == (256, 8192, 4096)


@pytest.mark.parametrize("name", ["big", "8x500@256/8192", "0x512@256/8192", "8x512", "8x512@0/8192"])
def test_shape_is_refused_with_those_there_are_when_there_is_none_such(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"--shape {name}: .*small, .*8x512@256/8192"):
        shape_named(name)


def test_presets_shapes_are_those_of_the_presets() -> None:
    from minigpt.config.load import load_config

    for preset, names in PRESETS.items():
        for shape in (SHAPES[name] for name in names if preset != "both"):
            model = load_config(preset, []).config.model
            wanted = (model.num_layers, model.hidden_size, model.num_heads, model.context_length)
            assert (shape.num_layers, shape.hidden_size, shape.num_heads, shape.context_length) == wanted
            assert shape.preset == preset
