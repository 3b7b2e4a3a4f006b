import random
from pathlib import Path

import numpy as np
import torch

from minigpt.checkpoint.rng import capture_rng, restore_rng, seed_everything

CPU = torch.device("cpu")


def draws() -> list[float]:
    # gauss and normal keep a second value for the next call: part of the state too.
    return [random.random(), random.gauss(), np.random.normal(), np.random.rand(), *torch.rand(3).tolist()]


def test_generators_go_on_bit_for_bit_when_their_state_went_through_a_safe_file(tmp_path: Path) -> None:
    seed_everything(3)
    draws()
    torch.save(capture_rng(CPU), tmp_path / "rng.pt")
    expected = [draws(), draws()]
    seed_everything(4)
    restore_rng(torch.load(tmp_path / "rng.pt"), CPU)
    assert [draws(), draws()] == expected


def test_generators_draw_the_same_when_seeded_the_same() -> None:
    seed_everything(2**40)
    first = draws()
    seed_everything(2**40)
    assert draws() == first
