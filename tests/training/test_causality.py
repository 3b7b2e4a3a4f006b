"""A run looks whether its own model sees the future."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.training.tiny_run import Workshop, metrics_of, read_lines


def test_run_finds_its_model_causal_at_its_first_step_and_as_the_loss_falls(
    workshop: Workshop, run_dir: Path
) -> None:
    assert workshop.train(run_dir, "training.max_steps=16") == 0
    seen = {record["step"]: record.get("future_influence") for record in metrics_of(run_dir)}
    assert seen[1] == 0.0
    assert {step for step, found in seen.items() if found is not None} > {1}
    assert set(seen.values()) == {0.0, None}


def test_run_without_a_mask_is_told_at_its_first_step(
    workshop: Workshop, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = F.scaled_dot_product_attention

    def unmasked(*given: Tensor, is_causal: bool = False, **named: object) -> Tensor:
        return attention(*given, is_causal=False, **named)  # type: ignore[misc, arg-type]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", unmasked)
    workshop.train(run_dir, "training.max_steps=2")
    told = [record for record in read_lines(run_dir / "events.jsonl") if record.get("name") == "future_leak"]
    assert [record["step"] for record in told if record["interrupts"]] == [1]
