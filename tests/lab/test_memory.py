"""Planned memory against a training's: the machinery, on a training of a second."""

from pathlib import Path

import pytest

from minigpt.errors import MiniGPTError
from minigpt.lab.memory.cases import CASES, Case
from minigpt.lab.memory.measure import measure

TINY = {"num_layers": 1, "hidden_size": 16, "num_heads": 2, "context_length": 16}


def test_a_case_is_trained_in_a_process_of_its_own(tmp_path: Path) -> None:
    case = Case("tiny", 300, 2, model=TINY, training={"mixed_precision": "off"})
    found = measure(case, tmp_path / "case", "cpu")
    assert sum(found.parts.values()) == found.predicted
    # Next to no tensors: what is left is the process's own.
    assert 20 << 20 < found.peak < 1 << 30
    assert (tmp_path / "case" / "run" / "checkpoint_step_3.pt").is_file()


def test_a_case_that_cannot_be_trained_is_told_in_a_line(tmp_path: Path) -> None:
    case = Case("odd heads", 300, 2, model={**TINY, "num_heads": 2}, training={"max_steps": 0})
    with pytest.raises(MiniGPTError, match=r"the training of 'odd heads' ended with 1: .*max_steps"):
        measure(case, tmp_path / "case", "cpu")


def test_cases_are_of_every_kind() -> None:
    assert len(CASES) >= 12
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.training.get("activation_checkpointing", "off") for case in CASES} == {
        "off",
        "selective",
        "full",
    }
