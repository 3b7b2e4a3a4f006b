from dataclasses import replace

import pytest

from minigpt.model.config import ModelConfig
from minigpt.model.count import attention_flops_per_token, flops_per_token
from minigpt.planning.levers import levers, recomputed_fraction
from minigpt.planning.memory import memory_report
from minigpt.planning.workload import Recompute, Workload

WORK = Workload(ModelConfig(), 8192, micro_batch_size=16)


def test_levers_come_with_their_saving_largest_first() -> None:
    found = {lever.override: lever.saved_bytes for lever in levers(WORK, tokenizer_vocab_size=8192)}
    # Compiled code keeps less, and the compiler itself takes some: a matter of size.
    assert found.keys() - {"training.compile=on"} == {
        "training.micro_batch_size=8",
        "model.context_length=128",
        "training.activation_checkpointing=selective",
        "training.activation_checkpointing=full",
        "training.mixed_precision=bf16",
        "optimizer.name=muon",
        "data.tokenizer.vocab_size=4096",
    }
    halved = memory_report(WORK).peak - memory_report(replace(WORK, micro_batch_size=8)).peak
    assert found["training.micro_batch_size=8"] == halved
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert (
        found["training.activation_checkpointing=full"] > found["training.activation_checkpointing=selective"]
    )


def test_levers_that_are_pulled_already_are_not_offered() -> None:
    pulled = Workload(
        ModelConfig(context_length=2), 320, 1, "bf16", "full", "muon", compiled=True, accumulates=True
    )
    assert levers(pulled, tokenizer_vocab_size=None) == []


@pytest.mark.parametrize("recompute", ["off", "selective"])
def test_full_checkpointing_costs_a_second_forward_pass_of_the_blocks(recompute: Recompute) -> None:
    work = replace(WORK, recompute=recompute)
    model = work.model
    head = 6 * work.vocab_size * model.hidden_size
    blocks = flops_per_token(model, work.vocab_size) - head
    # A third of the blocks' arithmetic is the forward pass's.
    assert recomputed_fraction(work) == pytest.approx(blocks / 3 / (blocks + head))
    assert attention_flops_per_token(model) == 6 * 6 * 384 * 256
