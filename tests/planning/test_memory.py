from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from minigpt.model.config import ModelConfig
from minigpt.model.count import num_parameters
from minigpt.model.gpt import GPT
from minigpt.planning.activations import FP32_BYTES
from minigpt.planning.memory import memory_report
from minigpt.planning.micro_batch import CPU_MICRO_BATCH_LIMIT, fitting_micro_batch, largest_micro_batch
from minigpt.planning.workload import Recompute, Workload
from tests.planning.live_bytes import live_bytes

SMALL = ModelConfig(num_layers=3, hidden_size=64, num_heads=4, context_length=64, intermediate_size=192)


def saved_bytes(work: Workload) -> int:
    """Bytes that autograd really keeps for the backward pass, weights themselves left out."""
    model = GPT(work.model, work.vocab_size).train()
    own = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        address = value.untyped_storage().data_ptr()
        if address not in own:
            kept[address] = value
        return value

    ids = torch.zeros(work.micro_batch_size, work.model.context_length, dtype=torch.int64)
    context: AbstractContextManager[object] = nullcontext()
    if work.precision != "off":
        context = torch.autocast("cpu", dtype=torch.bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value), context:
        # Kept alive: freed memory is given out again, and one address would stand for two tensors.
        sums = model(ids, ids)
    assert sums.total.requires_grad
    return sum(value.untyped_storage().nbytes() for value in kept.values())


@pytest.mark.parametrize("precision", ["off", "bf16"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_kv_heads": 2},
        {"qk_norm": True, "num_kv_heads": 1},
        {"norm_position": "post"},
        {"dropout": 0.1},
        {"z_loss_weight": 1e-4, "tie_embeddings": False},
        {"value_embedding_layers": 2, "num_kv_heads": 2},
    ],
    ids=str,
)
def test_activations_equal_what_autograd_keeps(precision: str, changes: dict[str, object]) -> None:
    config = ModelConfig.model_validate(SMALL.model_dump() | changes)
    work = Workload(config, vocab_size=512, micro_batch_size=4, precision=precision)
    report = memory_report(work)
    # Of the loss, the gradients of the hidden states and of the head.
    loss = 4 * 64 * work.activation_bytes * 64 + FP32_BYTES * 512 * 64
    kept = report.activations - report.backward_of_a_block
    assert kept + report.cast_weights + loss == pytest.approx(saved_bytes(work), rel=0.01)


@pytest.mark.parametrize("recompute", ["off", "selective", "full"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"dropout": 0.1, "qk_norm": True}, {"z_loss_weight": 1e-4}, {"value_embedding_layers": 3}],
    ids=str,
)
@pytest.mark.parametrize(("precision", "accumulates"), [("off", True), ("bf16", True), ("bf16", False)])
def test_peak_is_what_a_step_really_holds(
    precision: str, accumulates: bool, changes: dict[str, object], recompute: Recompute
) -> None:
    config = ModelConfig.model_validate(SMALL.model_dump() | {"num_layers": 6} | changes)
    work = Workload(config, 2048, 16, precision, recompute, accumulates=accumulates)
    report = memory_report(work)
    tensors = report.peak - report.runtime - report.parameters - report.optimizer_state
    assert tensors == pytest.approx(live_bytes(work), rel=0.02)


def test_parameters_gradients_and_moments_follow_from_the_count() -> None:
    total = num_parameters(SMALL, 512)
    report = memory_report(Workload(SMALL, 512, 1))
    assert (report.parameters, report.gradients, report.optimizer_state) == (4 * total, 4 * total, 8 * total)
    assert report.checkpoint_file == 12 * total
    assert report.cast_weights == 0
    assert report.peak == sum(size for _, size in report.parts())


def test_muon_keeps_one_moment_of_the_hidden_matrices() -> None:
    adamw, muon = (memory_report(replace(WORK, optimizer=name)) for name in ("adamw", "muon"))
    matrices = 3 * (4 * 64 * 64 + 3 * 64 * 192)
    assert adamw.optimizer_state - muon.optimizer_state == 4 * matrices


def test_several_ranks_hold_the_gradients_twice() -> None:
    one, two = (memory_report(Workload(SMALL, 512, 1, world_size=size)) for size in (1, 2))
    assert two.gradients == 2 * one.gradients


def test_activation_checkpointing_keeps_one_stream_a_block() -> None:
    report = memory_report(Workload(SMALL, 512, 2, recompute="full"))
    assert report.residual == 2 * 64 * (3 + 1) * 4 * 64
    assert report.attention == report.mlp == 0
    assert report.peak == sum(size for _, size in report.parts())
    assert report.peak < memory_report(Workload(SMALL, 512, 2)).peak


def test_grouped_queries_without_flash_attention_cost_quadratic_memory() -> None:
    grouped = SMALL.model_copy(update={"num_kv_heads": 2})
    fp16, bf16 = (
        memory_report(Workload(grouped, 512, 1, precision=precision, device_type="cuda"))
        for precision in ("fp16", "bf16")
    )
    weights = 3 * 64 * (4 * 64) * 2
    copies_of_keys_and_values = 3 * 64 * 2 * 32 * 2
    assert fp16.attention - bf16.attention == weights + copies_of_keys_and_values


WORK = Workload(SMALL, 512, micro_batch_size=1)


def test_micro_batch_is_the_largest_divisor_that_fits() -> None:
    five = memory_report(replace(WORK, micro_batch_size=5)).peak
    assert largest_micro_batch(WORK, sequences_per_rank_step=12, available_bytes=2 * five, fraction=0.5) == 4
    exact = memory_report(replace(WORK, micro_batch_size=6)).peak
    for extra, expected in ((0, 6), (-4, 4)):
        size = largest_micro_batch(
            WORK, sequences_per_rank_step=12, available_bytes=2 * exact + extra, fraction=0.5
        )
        assert size == expected


def test_micro_batch_is_one_when_nothing_fits() -> None:
    assert largest_micro_batch(WORK, sequences_per_rank_step=8, available_bytes=10) == 1
    assert fitting_micro_batch(WORK, sequences_per_rank_step=8, available_bytes=10) is None


def test_micro_batch_leaves_room_for_the_other_ranks_of_one_cpu() -> None:
    pair = replace(WORK, world_size=2)
    needed = memory_report(replace(pair, micro_batch_size=4)).peak
    for available, expected in ((2 * needed, 4), (2 * needed - 4, 2)):
        size = largest_micro_batch(pair, sequences_per_rank_step=8, available_bytes=available, fraction=1.0)
        assert size == expected


def test_micro_batch_is_limited_on_a_cpu_only() -> None:
    assert (
        largest_micro_batch(WORK, sequences_per_rank_step=96, available_bytes=None) == CPU_MICRO_BATCH_LIMIT
    )
    cuda = replace(WORK, device_type="cuda")
    assert largest_micro_batch(cuda, sequences_per_rank_step=96, available_bytes=None) == 96
