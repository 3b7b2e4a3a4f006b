import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.data.loader import BatchLoader, StepBatches
from minigpt.lab.bench.child import _loop_of
from minigpt.lab.bench.gate import Stopped
from minigpt.lab.bench.peers.loop import steps_of
from minigpt.lab.bench.shapes import Terms
from minigpt.model.count import flops_per_token
from tests.lab.bench.tiny_terms import OpenGate, tiny_terms

NEEDS = {"hf": "transformers", "hf-trainer": "accelerate", "litgpt": "litgpt"}
STEPS = 12


def trained(name: str, terms: Terms, overrides: list[str] | None = None) -> list[dict[str, Any]]:
    """What the gate heard of a contender's first steps."""
    package = NEEDS.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    gate = OpenGate((1, 0), (STEPS - 1, 0))
    with pytest.raises(Stopped):
        _loop_of(name, overrides or [])(terms, gate)
    return gate.answers


@pytest.mark.parametrize("name", ["minigpt", "minigpt-preset", "nanogpt", "hf", "hf-trainer", "litgpt"])
@pytest.mark.filterwarnings("default")  # the peers' own
def test_contender_starts_near_chance_and_learns_when_it_trains(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ready, first, rest = trained(name, tiny_terms(tmp_path))
    facts = ready["ready"]
    losses = first["values"] + rest["values"]
    assert len(losses) == STEPS
    assert losses[0] == pytest.approx(math.log(facts["vocab_size"]), abs=0.4)
    assert losses[-1] < losses[0] - 0.05


def test_peers_read_the_very_batches_that_minigpt_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    terms = tiny_terms(tmp_path)
    read: list[StepBatches] = []
    next_step = BatchLoader.next_step

    def noted(loader: BatchLoader) -> StepBatches:
        read.append(next_step(loader))
        return read[-1]

    monkeypatch.setattr(BatchLoader, "next_step", noted)
    trained("minigpt", terms)
    steps, _ = steps_of(terms)
    for ours in read[:3]:
        for one, other in zip(ours.micro_batches, next(steps), strict=True):
            assert torch.equal(one.inputs_BT, other.inputs_BT)
            assert torch.equal(one.targets_BT, other.targets_BT)


@pytest.mark.parametrize("name", ["nanogpt", "hf", "litgpt"])
@pytest.mark.filterwarnings("default")
def test_peer_has_minigpts_size_and_flops_when_both_have_one_shape(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    terms = tiny_terms(tmp_path)
    # The SwiGLU's width is rounded up to a multiple of 64: at 32 wide 128, as GELU's 4 x 32 of two matrices, not three.
    facts = trained(name, terms)[0]["ready"]
    ours = flops_per_token(terms.shape.model, facts["vocab_size"])
    third_matrix = 6 * 2 * 32 * 128 if name == "nanogpt" else 0
    assert facts["flops_per_token"] == ours - third_matrix
