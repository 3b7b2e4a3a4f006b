import pytest
import torch

from minigpt.distributed.device import device_title, peak_flops, resolve_device
from minigpt.distributed.world import joined_world, ranks_from_environment
from minigpt.errors import ConfigError


def test_world_of_one_agrees_with_itself_when_there_is_no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert ranks_from_environment() == (0, 0, 1)
    with joined_world("cpu") as world:
        assert (world.rank, world.size, world.is_main, world.device.type) == (0, 1, True, "cpu")
        value = torch.tensor(2.0)
        assert world.sum(value) is value
        assert world.any(True)
        assert not world.any(False)
        assert world.gather({"a": 1}) == [{"a": 1}]
        assert world.from_main("x") == "x"
        world.barrier()
    assert not torch.distributed.is_initialized()


def test_ranks_are_read_as_torchrun_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "3"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert ranks_from_environment() == (3, 1, 4)


def test_device_is_refused_in_one_line_when_the_machine_has_none_such() -> None:
    with pytest.raises(
        ConfigError, match=r"training\.device = cuda:99 wants CUDA device 99.*use auto or cpu"
    ):
        resolve_device("cuda:99")
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cuda", "mps", "cpu")


def test_cpu_has_a_title_and_no_ceiling() -> None:
    cpu = torch.device("cpu")
    assert peak_flops(cpu, torch.float32) is None
    assert device_title(cpu).startswith("CPU, ")
