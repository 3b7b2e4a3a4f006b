import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from minigpt.training import pretrain
from tests.training import tiny_run
from tests.training.tiny_run import Workshop, built_with_reads


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    """A tiny corpus and configuration; logs/ lands beside them. One thread: small tensors only lose by more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    yield Workshop.set_up(tmp_path)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 steps with checkpoints 0, 4, 5, 8, 10 and 12, all healthy; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished")
    with contextlib.chdir(folder):
        workshop = Workshop.set_up(folder)
        assert workshop.train(folder / "run", "checkpoint.keep_last=9", "monitor.enabled=false") == 0
    return folder / "run"


@pytest.fixture(params=[None, True], ids=["read-at-once", "read-late"])
def reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool | None:
    """Every run of this process reads its numbers at once, as on a CPU; and again one step late, as on CUDA."""
    late: bool | None = request.param
    build = built_with_reads(late)
    for module in (tiny_run, pretrain):
        monkeypatch.setattr(module, "build_run", build)
    return late


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"
