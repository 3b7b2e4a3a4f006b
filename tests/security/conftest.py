from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.commands import Commands
from tests.training.tiny_run import Workshop


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """The command line under watch."""
    served = Commands(tmp_path_factory.mktemp("commands"))
    yield served
    served.close()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A corpus and a tiny configuration."""
    return Workshop.set_up(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def trained(commands: Commands, workshop: Workshop) -> Path:
    """The folder of a finished run, to copy."""
    run_dir = workshop.folder / "run"
    ended = commands.run("train", "--config", workshop.config_path, "--run-dir", run_dir, cwd=workshop.folder)
    assert ended.code == 0, ended.err
    return run_dir
