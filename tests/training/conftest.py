from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.tiny_run import Workshop


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    """A tiny corpus and configuration; logs/ lands beside them. One thread: small tensors only lose by more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    yield Workshop.set_up(tmp_path)
    torch.set_num_threads(threads)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"
