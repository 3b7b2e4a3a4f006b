"""atomic: complete or not there, whoever dies when."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.atomic import atomic_folder, atomic_path, remove_folder, sweep_leftovers, write_text_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_atomic_path_writes_the_file_and_nothing_else(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "new" / "a.pt") as temporary:
        temporary.write_bytes(b"whole")
        assert not (tmp_path / "new" / "a.pt").exists()
    assert names(tmp_path / "new") == ["a.pt"]
    assert (tmp_path / "new" / "a.pt").read_bytes() == b"whole"


def test_atomic_path_keeps_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def interrupted() -> None:
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_atomic_folder_replaces_a_folder_in_one_go(tmp_path: Path) -> None:
    (tmp_path / "entry").mkdir()
    (tmp_path / "entry" / "old").touch()
    with atomic_folder(tmp_path / "entry") as building:
        (building / "sub").mkdir()
        (building / "sub" / "new").touch()
    assert names(tmp_path) == ["entry"]
    assert names(tmp_path / "entry") == ["sub"]


def test_atomic_folder_lets_the_first_win_when_existing_is_kept(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "entry", keep_existing=True) as second:
        (second / "second").touch()
        with atomic_folder(tmp_path / "entry", keep_existing=True) as first:
            (first / "first").touch()
    assert names(tmp_path) == ["entry"]
    assert names(tmp_path / "entry") == ["first"]


def test_atomic_folder_leaves_nothing_when_the_block_fails(tmp_path: Path) -> None:
    def failing() -> None:
        with atomic_folder(tmp_path / "entry") as building:
            (building / "half").touch()
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        failing()
    assert names(tmp_path) == []


def test_sweep_removes_the_killed_process_s_leftovers_but_not_a_live_one_s(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from minigpt.atomic import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as building:\n"
        "    (building / 'half').touch(); print('ready', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "entry")], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        sweep_leftovers(tmp_path)
        assert len(names(tmp_path)) == 1
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    sweep_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_sweep_leaves_other_hidden_files_alone(tmp_path: Path) -> None:
    for name in (".gitkeep", ".a.tmp", ".a.tmp-host-1", "a.tmp-host-1-ff"):
        (tmp_path / name).touch()
    sweep_leftovers(tmp_path)
    assert len(names(tmp_path)) == 4


def test_remove_folder_is_silent_when_it_is_gone(tmp_path: Path) -> None:
    (tmp_path / "entry").mkdir()
    remove_folder(tmp_path / "entry")
    remove_folder(tmp_path / "entry")
    assert names(tmp_path) == []


def test_write_text_keeps_line_ends(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "a", "é\r\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\r\n"
