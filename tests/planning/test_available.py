from pathlib import Path

import pytest
import torch

from minigpt.planning.available import available_bytes, cgroup_available


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_cpu_has_some_memory_left_and_not_more_than_the_machine() -> None:
    available = available_bytes(torch.device("cpu"))
    assert available is not None
    assert 1 << 20 < available < 1 << 50


def test_cgroup_v2_leaves_what_is_below_the_tightest_limit_of_its_ancestors(tmp_path: Path) -> None:
    write(
        tmp_path / "job",
        memory__max="1000\n",
        memory__current="700\n",
        memory__stat="anon 1\ninactive_file 50\n",
    )
    write(
        tmp_path / "job/step", memory__max="max\n", memory__current="600\n", memory__stat="inactive_file 9\n"
    )
    assert cgroup_available(tmp_path, "0::/job/step\n") == 350


def test_cgroup_v2_of_a_container_is_the_mounted_root_itself(tmp_path: Path) -> None:
    write(tmp_path, memory__max="1000\n", memory__current="400\n", memory__stat="inactive_file 0\n")
    assert cgroup_available(tmp_path, "0::/docker/abc\n") == 600


def test_cgroup_v1_reads_the_memory_controllers_files(tmp_path: Path) -> None:
    write(
        tmp_path / "memory/box",
        memory__limit_in_bytes="500\n",
        memory__usage_in_bytes="450\n",
        memory__stat="total_inactive_file 30\n",
    )
    assert cgroup_available(tmp_path, "3:cpu,cpuacct:/x\n2:memory:/box\n") == 80


@pytest.mark.parametrize("limit", ["max", str((1 << 63) - 4096)])
def test_cgroup_without_a_limit_tells_nothing(tmp_path: Path, limit: str) -> None:
    write(tmp_path, memory__max=limit, memory__current="1", memory__stat="inactive_file 0")
    assert cgroup_available(tmp_path, "0::/\n") is None


def test_cgroup_that_is_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path, memory__max="100", memory__current="130", memory__stat="inactive_file 0")
    assert cgroup_available(tmp_path, "0::/\n") == 0


def test_system_without_cgroups_has_no_limit(tmp_path: Path) -> None:
    assert cgroup_available(tmp_path / "none", "") is None
