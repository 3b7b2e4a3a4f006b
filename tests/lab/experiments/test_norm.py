import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from minigpt.lab.experiments.experiment import Results
from minigpt.lab.experiments.initializations import FILLS, XAVIER, fill_blocks
from minigpt.lab.experiments.intervals import Ratio
from minigpt.lab.experiments.norm import CASES, EXPERIMENT, tables
from minigpt.lab.experiments.norm_claims import claims_on, ratio_claim
from minigpt.lab.experiments.norm_measures import (
    COLD,
    POST,
    PRE,
    WARM,
    Case,
    Duel,
    at_start,
    block_norms,
    duels_in,
    failed,
    loss_difference,
    speed_ratio,
    steps_of_pair,
    variance_over_layers,
    variance_over_steps,
    variance_ratio,
)
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.ratios import ratio_of
from minigpt.lab.experiments.report import draw
from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize
from tests.lab.experiments.made_up import outcome
from tests.lab.experiments.short_form import short_results

RATE = "1e-3"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("norm")
    return short_results(EXPERIMENT, folder, "training.max_steps=12", "training.tokens_per_step=256", seeds=1)


def test_pre_norms_last_block_has_less_gradient_at_the_start_when_deeper_and_post_norms_keeps_it(
    found: Results,
) -> None:
    falls = {}
    for norm in (PRE, POST):
        shallow, deep = (
            block_norms(at_start(found, CASES, depth, norm)[0].before["xavier"])[-1] for depth in (4, 12)
        )
        falls[norm] = deep / shallow
    assert falls[PRE] < 0.8
    assert falls[POST] > falls[PRE]


def test_the_stream_has_rms_1_with_post_norm_and_grows_with_pre_norm(found: Results) -> None:
    pre, post = (at_start(found, CASES, 12, norm)[0].before["xavier"]["stream"] for norm in (PRE, POST))
    assert all(value == pytest.approx(1, abs=0.01) for value in post)
    assert all(earlier < later for earlier, later in pairwise(pre))


def test_the_look_leaves_the_first_step_what_it_was(found: Results) -> None:
    for results in found.values():
        one = results[0]
        norms = [
            one.first_group_norms[f"blocks.{index}"] for index in range(len(one.before["own"]["blocks"]))
        ]
        assert block_norms(one.before["own"]) == pytest.approx(norms, rel=1e-4)
        assert one.losses[0] == pytest.approx(one.before["own"]["loss"], rel=1e-5)


def test_the_plot_draws_the_short_form_and_single_arms(found: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(EXPERIMENT, found, tmp_path / "all.png")
    draw(EXPERIMENT, dict(list(found.items())[:1]), tmp_path / "one.png")
    assert (tmp_path / "all.png").stat().st_size > 10_000


def test_every_table_and_claim_of_the_short_form_can_be_read(found: Results) -> None:
    starts, runs, ratios = tables(found)
    assert len(starts.rows) == 8
    assert len(runs.rows) == len(found) == 4
    assert len(ratios.rows) == 2
    for table in (starts, runs, ratios):
        assert len(table.markdown().splitlines()) == len(table.rows) + 4
    assert {claim.held for claim in EXPERIMENT.claims(found)} <= {
        "held",
        "held in part",
        "did not hold",
        "cannot be told",
    }


def test_post_norms_gradients_grow_towards_the_input_because_of_the_swiglu() -> None:
    """The paper reckons with ReLU: in its place gradients stay about even."""
    swiglu = _last_over_first(relu=False)
    assert swiglu < 0.5
    assert _last_over_first(relu=True) > 3 * swiglu


def _last_over_first(*, relu: bool) -> float:
    """Of the blocks' gradient norms in a Post-Norm model of 48 feed-forwards."""
    config = ModelConfig(num_layers=48, hidden_size=64, num_heads=4, context_length=32, norm_position="post")
    model = GPT(config, 128)
    initialize(model, 0)
    fill_blocks(model, FILLS[XAVIER], 0)
    for block in model.blocks:
        nn.init.zeros_(block.get_parameter("attention.output.weight"))
        if relu:
            block.mlp = ReLU(block.get_submodule("mlp"))
    tokens_BT = torch.randint(128, (4, 33), generator=torch.Generator().manual_seed(0))
    model(tokens_BT[:, :-1], tokens_BT[:, 1:]).total.backward()
    first, last = (
        math.hypot(*(p.grad.norm() for p in model.blocks[index].parameters() if p.grad is not None))
        for index in (0, -1)
    )
    return last / first


class ReLU(nn.Module):
    """A plain feed-forward of the SwiGLU's matrices, `sqrt(2)` making up for what ReLU halves."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.gate, self.down = mlp.get_submodule("gate"), mlp.get_submodule("down")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(math.sqrt(2) * torch.relu(self.gate(x)))  # type: ignore[no-any-return]


def made(
    case: Case,
    seed: int,
    blocks: tuple[float, ...],
    losses: list[float],
    *,
    last: float = 1.0,
    health: str = "healthy",
    entropy: float = 6.0,
) -> Outcome:
    """A run whose gradient had these norms by block, and that lost so much at each step."""
    look = {"blocks": list(blocks), "loss": 7.0}
    return replace(
        outcome(losses, arm=case.name, seed=seed, health=health, unigram_loss=entropy),
        before={"own": look, "xavier": {"blocks": [*blocks[:-1], last], "loss": 7.0}},
        after=look,
    )


def falling(to: float, steps: int = 100) -> list[float]:
    """A straight line from 7 nats."""
    return [7 - (7 - to) * index / (steps - 1) for index in range(steps)]


def duel_of(depth: int = 4, warm_up: str = WARM) -> Duel:
    return Duel(Case(depth, POST, RATE, warm_up), Case(depth, PRE, RATE, warm_up))


def test_variances_are_those_by_hand() -> None:
    assert variance_over_layers({"blocks": [1.0, 3.0]}) == 1.0
    assert math.isnan(variance_over_layers({"blocks": [1.0, None]}))
    one = replace(outcome([1.0] * 4), grad_norms=(9.0, 9.0, 2.0, 6.0))
    assert variance_over_steps(one) == 4.0
    assert math.isnan(variance_over_steps(replace(one, grad_norms=(9.0, 9.0, 2.0, None))))


def test_ratios_are_geometric() -> None:
    found = ratio_of([(2.0, 1.0), (8.0, 1.0)])
    assert found.value == pytest.approx(4)
    assert found.low * found.high == pytest.approx(16)
    assert ratio_of([(2.0, 1.0)]) == Ratio(2.0, 2.0, 2.0, 1)
    assert ratio_of([(math.nan, 1.0), (0.0, 1.0)]).text() == "-"


def test_variance_ratio_is_post_norms_over_pre_norms_of_the_same_seeds() -> None:
    duel = duel_of()
    results = {
        duel.post.name: [made(duel.post, seed, (1.0, 5.0), falling(5)) for seed in (0, 1)],
        duel.pre.name: [made(duel.pre, 1, (1.0, 3.0), falling(5))],
    }
    assert variance_ratio(results, duel, "over the layers at the start") == Ratio(4.0, 4.0, 4.0, 1)


def test_steps_are_counted_to_the_worse_ones_final_loss() -> None:
    duel = duel_of()
    fast, slow = made(duel.pre, 0, (1.0,), falling(3)), made(duel.post, 0, (1.0,), falling(5))
    post, pre, bound = steps_of_pair(slow, fast) or (0, 0, True)
    assert not bound
    # The one falls 4/99 nats a step and the other 2/99: about twice as many steps to the same loss.
    assert post / pre == pytest.approx(2, rel=0.1)
    assert (steps_of_pair(fast, slow) or (0, 0, True))[:2] == (pre, post)


def test_post_norm_that_blew_up_is_a_lower_bound_and_pre_norm_that_did_is_no_comparison() -> None:
    duel = duel_of()
    well, ill = (
        made(duel.pre, 0, (1.0,), falling(3)),
        replace(made(duel.post, 0, (1.0,), falling(5)), stopped=True),
    )
    found = speed_ratio({duel.post.name: [ill], duel.pre.name: [well]}, duel)
    assert found.at_least
    assert found.value >= 1
    assert steps_of_pair(well, ill) is None


def test_a_run_failed_when_it_learnt_nothing_of_the_context() -> None:
    case = duel_of().pre
    assert failed(made(case, 0, (1.0,), [6.0] * 40))
    assert not failed(made(case, 0, (1.0,), falling(5)))
    assert failed(replace(made(case, 0, (1.0,), falling(5)), stopped=True))


@pytest.mark.parametrize(
    ("ratio", "held"),
    [
        (Ratio(3.2, 2.0, 4.0, 3), "held"),
        (Ratio(1.5, 1.2, 2.0, 3), "held in part"),
        (Ratio(3.2, 0.9, 9.0, 3), "did not hold"),
        (Ratio(0.3, 0.2, 0.4, 3), "did not hold"),
        (Ratio(3.2, 3.2, 3.2, 1), "cannot be told"),
        (Ratio(1.5, 1.2, 2.0, 3, at_least=True), "held"),
    ],
)
def test_a_ratio_holds_where_it_is_above_one_and_reaches_the_claim(ratio: Ratio, held: str) -> None:
    assert ratio_claim("", {"4 layers": ratio}, 3.0).held == held


def grid(
    last: dict[tuple[int, str], float], cold: dict[str, float], health: str = "healthy"
) -> dict[str, list[Outcome]]:
    """Runs of 4 and 12 layers, warm with a final loss near 5, cold with `cold[norm]` more."""
    cases = [case for case in CASES if case.rate == RATE and case.depth in (4, 12)]
    return {
        case.name: [
            made(
                case,
                seed,
                (1.0, 1.0, 2.0),
                falling(5 + 0.01 * seed + (cold[case.norm] if case.warm_up == COLD else 0)),
                last=last[case.depth, case.norm] * (1 + 0.01 * seed),
                health=health,
            )
            for seed in (0, 1, 2)
        ]
        for case in cases
    }


LIKE_THE_PAPER = {(4, PRE): 2.0, (12, PRE): 1.2, (4, POST): 2.0, (12, POST): 2.0}


def verdicts(results: Results) -> dict[str, str]:
    return {claim.text.partition(" (")[0]: claim.held for claim in claims_on(results, CASES)}


def test_the_papers_claims_hold_of_results_like_the_papers_and_not_of_their_opposite() -> None:
    falls = "at the start the last block's gradient falls with depth in Pre-Norm, and not in Post-Norm"
    order = "at the start a deep Post-Norm model's gradients are largest near the output"
    warm = "Post-Norm needs warm-up, Pre-Norm does not"
    good = verdicts(grid(LIKE_THE_PAPER, {PRE: 0.0, POST: 0.5}))
    assert (good[falls], good[order], good[warm]) == ("held", "held", "held")
    opposite = {(4, PRE): 0.5, (12, PRE): 0.6, (4, POST): 0.5, (12, POST): 0.1}
    bad = verdicts(grid(opposite, {PRE: 0.5, POST: 0.0}))
    assert (bad[falls], bad[order], bad[warm]) == ("did not hold", "did not hold", "did not hold")


def test_the_monitor_is_right_when_sick_means_failed() -> None:
    text = "the monitor calls the blown-up runs sick, none healthy that learnt nothing, and no other sick"
    assert verdicts(grid(LIKE_THE_PAPER, {PRE: 0.0, POST: 0.5}))[text] == "held"
    assert verdicts(grid(LIKE_THE_PAPER, {PRE: 0.0, POST: 0.5}, health="sick"))[text] == "did not hold"
    # Cold Post-Norm learns nothing here, and is called healthy: 6 of 24 are wrong.
    assert verdicts(grid(LIKE_THE_PAPER, {PRE: 0.0, POST: 1.5}))[text] == "held in part"


def test_duels_need_both_norms_and_loss_differences_the_same_seed() -> None:
    duel = duel_of()
    results = {duel.post.name: [made(duel.post, 0, (1.0,), falling(5))]}
    assert duels_in(results, CASES) == []
    results[duel.pre.name] = [made(duel.pre, seed, (1.0,), falling(4)) for seed in (0, 1)]
    assert duels_in(results, CASES) == [duel]
    difference = loss_difference(results, duel.post, duel.pre)
    assert (difference.count, difference.half_width) == (1, None)
    assert difference.value == pytest.approx(0.98, abs=0.03)
