"""A file of records on a disk that refuses: nothing twice, nothing torn, nothing missing."""

import contextlib
import hashlib
import os
import random
import shutil
from pathlib import Path

import pytest

from minigpt.training_monitor.sinks import append_file
from minigpt.training_monitor.sinks.append_file import AppendFile
from tests.training_monitor.bad_disk import BadDisk


def line(number: int) -> bytes:
    return b"%d %s\n" % (number, b"x" * (number * 7 % 90))


@pytest.mark.parametrize("seed", range(60))
def test_file_has_every_record_once_when_the_disk_fails_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(append_file, "SYNC_BYTES", 2000)
    disk = BadDisk(monkeypatch, seed)
    path = tmp_path / "records"
    file = AppendFile(lambda: path)
    for number in range(400):
        disk.share = chance.choice((0.0, 0.0, 0.2, 0.9)) if number % 20 == 0 else disk.share
        file.append(line(number))
        if number % 50 == 0:
            with contextlib.suppress(OSError):
                file.flush()
                size, digest = file.confirmed
                assert hashlib.sha256(path.read_bytes()[:size]).hexdigest() == digest
                assert path.read_bytes() == b"".join(line(n) for n in range(number + 1))
    disk.share = 0.0
    file.flush()
    file.close()
    assert path.read_bytes() == b"".join(map(line, range(400)))
    assert file.confirmed[0] == path.stat().st_size
    assert file.trouble is None
    assert disk.faults > 0


def test_file_shows_whole_records_only_when_a_write_was_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records"
    file = AppendFile(lambda: path)
    file.append(b"one\n")
    own = os.write
    monkeypatch.setattr("os.write", lambda descriptor, data: own(descriptor, data[:2]))
    file.append(b"two\n")
    assert path.read_bytes() == b"one\n"
    assert file.trouble is not None
    monkeypatch.undo()
    file.flush()
    assert path.read_bytes() == b"one\ntwo\n"
    file.close()


def test_flush_raises_while_the_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = BadDisk(monkeypatch)
    file = AppendFile(lambda: tmp_path / "records")
    disk.share = 1.0
    file.append(b"one\n")
    with pytest.raises(OSError, match=r"Errno"):
        file.flush()
    with pytest.raises(OSError, match=r"Errno"):
        file.close()


def test_memory_is_bounded_and_what_is_lost_is_counted_when_the_disk_refuses_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_file, "HELD_BYTES", 100)
    disk = BadDisk(monkeypatch)
    path = tmp_path / "records"
    file = AppendFile(lambda: path)
    disk.share = 1.0
    for _ in range(50):
        file.append(b"123456789\n")
    disk.share = 0.0
    file.flush()
    assert path.read_bytes() == b"123456789\n" * 10
    assert file.take_lost() == 40
    assert file.take_lost() == 0
    file.close()


def test_file_is_brought_back_when_somebody_deletes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "records"
    path.parent.mkdir()
    file = AppendFile(lambda: path)
    file.append(b"one\n")
    file.flush()
    shutil.rmtree(path.parent)
    file.append(b"two\n")
    file.flush()
    assert path.read_bytes() == b"one\ntwo\n"
    file.close()


def test_file_is_not_begun_anew_where_its_disk_was_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mount" / "records"
    path.parent.mkdir()
    file = AppendFile(lambda: path)
    file.append(b"one\n")
    file.flush()
    path.parent.rename(tmp_path / "elsewhere")  # as an unmounted disk: only who has it open still sees it
    path.parent.mkdir()
    monkeypatch.setattr(AppendFile, "_is_same_disk", lambda self, path: False)
    file.append(b"two\n")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            file.flush()
    assert list(path.parent.iterdir()) == []
    path.parent.rmdir()
    (tmp_path / "elsewhere").rename(path.parent)  # mounted again
    file.flush()
    assert path.read_bytes() == b"one\ntwo\n"
    file.close()
