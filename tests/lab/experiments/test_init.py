import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minigpt.lab.experiments.experiment import Results
from minigpt.lab.experiments.init import EXPERIMENT, OURS, SCHOOLS, tables, target_loss
from minigpt.lab.experiments.init_claims import (
    bad_arms,
    evenness_claim,
    kaiming_claim,
    variance_growth,
    verdict_claim,
)
from minigpt.lab.experiments.initializations import (
    FILLS,
    KAIMING,
    TORCH,
    XAVIER,
    blocks_filled,
    fill_blocks,
    fill_embedding,
    normal,
)
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.report import draw
from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize
from tests.lab.experiments.made_up import outcome
from tests.lab.experiments.short_form import short_results


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("init")
    return short_results(EXPERIMENT, folder, "training.max_steps=12", "training.tokens_per_step=256")


def test_the_first_loss_is_that_of_guessing_unless_the_embedding_is_large(found: Results) -> None:
    for name, results in found.items():
        above = results[0].before["loss"] - results[0].before["guessing"]
        assert above > 1 if name == TORCH else abs(above) < 0.5, name


def test_the_look_sees_the_weights_that_the_first_step_trains(found: Results) -> None:
    for (one,) in found.values():
        norms = [one.first_group_norms[f"blocks.{index}"] for index in range(len(one.before["blocks"]))]
        assert one.before["blocks"] == pytest.approx(norms, rel=1e-4)
        assert one.losses[0] == pytest.approx(one.before["loss"], rel=1e-5)


def test_larger_weights_make_a_larger_stream(found: Results) -> None:
    last = [found[name][0].before["stream"][-1] for name in ("0.0002", "0.02", "0.2", "1")]
    assert last == sorted(last)
    assert variance_growth(found[XAVIER], "stream").value > variance_growth(found[OURS], "stream").value > 1


def test_the_monitor_names_the_first_loss_of_torchs_defaults_and_says_nothing_of_it_in_ours(
    found: Results,
) -> None:
    assert "initial_loss" in found[TORCH][0].findings
    assert "initial_loss" not in found[OURS][0].findings


def test_the_plot_draws_the_short_form_and_single_arms(found: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(EXPERIMENT, found, tmp_path / "all.png")
    draw(EXPERIMENT, dict(list(found.items())[:1]), tmp_path / "one.png")
    assert (tmp_path / "all.png").stat().st_size > 10_000


def test_every_table_and_claim_of_the_short_form_can_be_read(found: Results) -> None:
    starts, runs = tables(found)
    assert len(starts.rows) == len(runs.rows) == len(SCHOOLS)
    assert len(set(starts.columns)) == len(starts.columns)
    assert len(EXPERIMENT.claims(found)) == 3


def model_of(hidden_size: int = 256) -> GPT:
    model = GPT(ModelConfig(num_layers=2, hidden_size=hidden_size, num_heads=4, context_length=16), 512)
    initialize(model, 0)
    return model


@pytest.mark.parametrize(
    ("fill", "query", "down"),
    [
        # A query matrix has 256 inputs and outputs, down 704 inputs (8/3 of 256, up to a multiple of 64).
        (FILLS[XAVIER], math.sqrt(2 / 512), math.sqrt(2 / 960)),
        (FILLS[KAIMING], math.sqrt(2 / 256), math.sqrt(2 / 704)),
        # The standard deviation of a uniform number within 1 / sqrt(n) is 1 / sqrt(3 n).
        (FILLS[TORCH], math.sqrt(1 / 768), math.sqrt(1 / 2112)),
        (normal(0.3), 0.3, 0.3),
    ],
)
def test_matrices_have_the_std_of_their_school(fill: object, query: float, down: float) -> None:
    model = model_of()
    fill_blocks(model, fill, 1)  # type: ignore[arg-type]
    weights = {name: float(value.std()) for name, value in model.blocks[1].state_dict().items()}
    assert weights["attention.query.weight"] == pytest.approx(query, rel=0.02)
    assert weights["mlp.down.weight"] == pytest.approx(down, rel=0.02)
    assert weights["mlp_norm.weight"] == 0


def test_only_the_matrices_of_the_blocks_change_and_the_same_seed_gives_the_same() -> None:
    model, twin, other = model_of(64), model_of(64), model_of(64)
    embedding = model.embedding.weight.clone()
    for each, seed in ((model, 3), (twin, 3), (other, 4)):
        fill_blocks(each, FILLS[XAVIER], seed)
    weights = [each.blocks[0].get_parameter("mlp.up.weight") for each in (model, twin, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(model.embedding.weight, embedding)
    fill_embedding(model, normal(1.0), 3)
    assert float(model.embedding.weight.detach().std()) == pytest.approx(1, rel=0.03)


def test_what_was_filled_for_a_while_is_as_before_after_it() -> None:
    model = model_of(64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with blocks_filled(model, normal(1.0), 0):
        assert not torch.equal(model.state_dict()["blocks.0.mlp.up.weight"], before["blocks.0.mlp.up.weight"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def runs_of(
    name: str,
    final: float,
    *,
    stream: tuple[float, float] = (1.0, 1.0),
    branch: tuple[float, float] = (1.0, 1.0),
    health: str = "healthy",
) -> list[Outcome]:
    return [
        replace(
            outcome([7.0] * 20 + [final + 0.01 * seed] * 20, arm=name, seed=seed, health=health),
            before={
                "loss": 7.0,
                "guessing": 6.9,
                "blocks": [1.0, 1.0],
                "stream": list(stream),
                "branch": list(branch),
            },
        )
        for seed in (0, 1, 2)
    ]


def test_xavier_is_even_where_stream_and_branches_are() -> None:
    def held(stream: float, branch: float) -> str:
        return evenness_claim({XAVIER: runs_of(XAVIER, 5.0, stream=(1.0, stream), branch=(1.0, branch))}).held

    # Of variances: 1.4 is 1.96 of them, 1.5 is 2.25.
    assert held(1.4, 1.0) == "held"
    assert held(1.5, 1.0) == "held in part"
    assert held(1.0, 0.5) == "held in part"
    assert held(1.5, 0.5) == "did not hold"


def test_kaiming_is_recommended_where_its_loss_is_the_lowest() -> None:
    def held(kaiming: float) -> str:
        arms = {OURS: runs_of(OURS, 5.0), XAVIER: runs_of(XAVIER, 5.5), KAIMING: runs_of(KAIMING, kaiming)}
        return kaiming_claim(arms).held

    assert [held(4.9), held(5.2), held(5.6)] == ["held", "held in part", "did not hold"]
    alone = {name: runs_of(name, 5.0)[:1] for name in (OURS, KAIMING)}
    assert kaiming_claim(alone).held == "cannot be told"


def test_the_monitor_is_right_when_it_speaks_of_the_bad_and_of_no_other() -> None:
    good, bad = runs_of("good", 5.0), runs_of("bad", 5.2)
    assert bad_arms({"good": good, "bad": bad}) == ["bad"]
    assert bad_arms({"good": good, "good too": runs_of("good too", 5.05)}) == []
    assert bad_arms({"good": good, "bad": [replace(good[0], stopped=True)]}) == ["bad"]
    spoken = [replace(one, health="watch") for one in bad]
    assert verdict_claim({"good": good, "bad": spoken}).held == "held"
    assert verdict_claim({"good": good, "bad": bad}).held == "did not hold"
    assert verdict_claim({"good": good, "too": good, "bad": bad}).held == "held in part"


def test_the_target_is_the_middle_arms_final_loss() -> None:
    arms = {str(final): runs_of(str(final), final) for final in (5.0, 6.0, 5.5)}
    assert target_loss(arms) == pytest.approx(5.51)
    assert math.isnan(target_loss({}))
