"""Layer groups, and the way of a device's numbers to the host."""

import pytest
import torch

from minigpt.training_monitor.deferred_read import DeferredRead
from minigpt.training_monitor.groups import parameter_groups_by_layer, plain_name


def test_groups_are_the_layers_of_a_gpt() -> None:
    names = [
        "embedding.weight",
        "blocks.0.attention.query.weight",
        "blocks.10.mlp.up.weight",
        "norm.weight",
        "head.weight",
    ]
    assert list(parameter_groups_by_layer(names).values()) == [
        "embedding",
        "blocks.0",
        "blocks.10",
        "norm",
        "head",
    ]


def test_groups_keep_the_modules_beside_a_nested_stack_apart() -> None:
    names = [
        "transformer.wte.weight",
        "transformer.h.3.ln_1.weight",
        "transformer.ln_f.weight",
        "lm_head.weight",
    ]
    expected = ["transformer.wte", "transformer.h.3", "transformer.ln_f", "lm_head"]
    assert list(parameter_groups_by_layer(names).values()) == expected


def test_groups_forget_the_prefixes_of_wrappers() -> None:
    assert plain_name("module._orig_mod.blocks.0.norm.weight") == "blocks.0.norm.weight"
    assert parameter_groups_by_layer(["_orig_mod.0.weight", "weight"]) == {
        "_orig_mod.0.weight": "0",
        "weight": "weight",
    }


def test_read_is_at_once_on_the_cpu() -> None:
    reads: DeferredRead[str] = DeferredRead()
    assert reads.push("first", torch.tensor([1.0, 2.0])) == ("first", [1.0, 2.0])
    assert reads.drain() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_read_is_one_step_late_and_without_a_sync_on_cuda() -> None:
    reads: DeferredRead[int] = DeferredRead()
    vector = torch.arange(3.0, device="cuda")
    reads.push(0, vector)
    reads.drain()
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = [reads.push(step, vector + step) for step in range(1, 6)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert got[0] is None
    assert [entry[0] for entry in got[1:] if entry is not None] == [1, 2, 3, 4]
    assert reads.drain() == (5, [5.0, 6.0, 7.0])
