"""Every byte of a checkpoint counts: what is damaged anywhere is known before anything of it is used."""

import hashlib
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from minigpt.checkpoint.content import glance_at_checkpoint, is_good
from minigpt.checkpoint.damage import DamagedError
from minigpt.checkpoint.digest import MAGIC, damage_in, is_sealed, write_sealed
from minigpt.checkpoint.files import FORMAT
from minigpt.checkpoint.health import health_mark
from minigpt.checkpoint.load import load_checkpoint, load_given, load_newest
from minigpt.checkpoint.save import save_checkpoint
from minigpt.errors import CheckpointError
from minigpt.lab.damage import unseen_cuts, unseen_flips

HEX = 64
END = 400
"""Bytes of the end that are tried one by one: the archive's directory, its end record, the comment."""


def saved(run_dir: Path, step: int = 7) -> Path:
    weights = {f"w{index}": torch.full((16, 16), float(step + index)) for index in range(4)}
    return save_checkpoint(run_dir, step, {"model_state_dict": weights, **health_mark({}, None)})


def saved_without_digest(run_dir: Path, step: int = 7) -> Path:
    """As before there was one."""
    path = run_dir / f"checkpoint_step_{step}.pt"
    content = {"format": FORMAT, "step": step, "model_state_dict": {"w": torch.full((1000,), float(step))}}
    torch.save({**content, **health_mark({}, None)}, path)
    return path


def flip(path: Path, byte: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)


def test_file_is_a_plain_torch_archive_whose_comment_is_the_sha256_of_all_before_its_digits(
    tmp_path: Path,
) -> None:
    path = saved(tmp_path)
    content = path.read_bytes()
    assert content[-HEX:].decode() == hashlib.sha256(content[:-HEX]).hexdigest()
    for state in (torch.load(path), torch.load(path, mmap=True), load_checkpoint(path)):
        assert state["model_state_dict"]["w2"].tolist() == [[9.0] * 16] * 16
    with zipfile.ZipFile(path) as archive:
        assert archive.comment == MAGIC + content[-HEX:]
        assert archive.testzip() is None


def test_same_state_gives_the_same_bytes_wherever_it_is_saved(tmp_path: Path) -> None:
    """No name of a temporary file, no time of day: two runs can be compared by their files."""
    assert saved(tmp_path / "one").read_bytes() == saved(tmp_path / "other").read_bytes()


def test_every_cut_and_every_flipped_bit_of_the_end_is_noticed_and_a_sample_of_the_rest(
    tmp_path: Path,
) -> None:
    """All of them: scripts/damage_checkpoint.py."""
    path = saved(tmp_path)
    size, draw = path.stat().st_size, random.Random(0)
    cuts = {*range(300), *range(size - END, size), *draw.sample(range(size), 300)}
    assert unseen_cuts(path, load_checkpoint, cuts) == []
    bits = {*range(8 * 64), *range(8 * (size - END), 8 * size), *draw.sample(range(8 * size), 3000)}
    assert unseen_flips(path, load_checkpoint, bits) == []
    assert load_checkpoint(path)["step"] == 7


def test_damage_is_noticed_when_it_is_wider_than_a_bit(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content, draw = path.read_bytes(), random.Random(1)
    for _ in range(200):
        start = draw.randrange(len(content))
        stop = min(len(content), start + draw.choice((2, 64, 512, 4096)))
        other = draw.choice((bytes(stop - start), draw.randbytes(stop - start), content[: stop - start], b""))
        damaged = content[:start] + other + content[stop:]
        if damaged == content:
            continue
        path.write_bytes(damaged)
        with pytest.raises(DamagedError):
            load_checkpoint(path)


def test_trials_see_what_a_reader_does_not_notice(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"ab")

    def wants_an_a(path: Path) -> None:
        if path.read_bytes()[:1] != b"a":
            raise CheckpointError("no a")

    assert unseen_cuts(path, wants_an_a, range(2)) == [1]
    assert unseen_flips(path, wants_an_a, range(16)) == list(range(8, 16))
    assert path.read_bytes() == b"ab"


def test_nothing_is_unpickled_when_the_bytes_are_not_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    flip(path, 200)

    def unpickled(*arguments: object, **named: object) -> None:
        raise AssertionError

    monkeypatch.setattr(torch, "load", unpickled)
    for read in (load_checkpoint, glance_at_checkpoint):
        with pytest.raises(
            DamagedError, match=r"checkpoint_step_7\.pt is damaged: its content does not match its"
        ):
            read(path)


def test_older_file_without_a_digest_is_read_by_the_checksums_it_has(tmp_path: Path) -> None:
    path = saved_without_digest(tmp_path)
    assert not is_sealed(path)
    assert load_checkpoint(path)["step"] == 7
    assert is_good(path)
    flip(path, path.read_bytes().find(torch.full((4,), 7.0).numpy().tobytes()) + 100)
    with pytest.raises(DamagedError, match=r"the checksum of .* does not match"):
        load_checkpoint(path)


def test_flip_in_the_comments_name_is_no_older_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    flip(path, -HEX - len(MAGIC))
    with pytest.raises(DamagedError, match="its end is not that of a finished file"):
        load_checkpoint(path)


def put_zeros(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(b"")
    os.truncate(path, size)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def append_itself(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        path.unlink()
        make(path)

    return act


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "zeros": (put_zeros, "its end is not that of a finished file"),
    "grown": (grow, "its end is not that of a finished file"),
    "doubled": (append_itself, "does not match its checksum"),
    "folder": (replaced(Path.mkdir), "it is a folder"),
    "fifo": (replaced(os.mkfifo), "it is a FIFO"),
    "dangling link": (replaced(lambda path: path.symlink_to("gone")), "a link to what is not there"),
    "link loop": (replaced(lambda path: path.symlink_to(path.name)), "a link that leads to itself"),
    "device": (replaced(lambda path: path.symlink_to("/dev/zero")), "it is a device"),
    "another step's": (
        lambda path: shutil.copy(path.with_name("checkpoint_step_3.pt"), path),
        "it holds step 3, not 20",
    ),
    "no checkpoint": (
        lambda path: write_sealed(path, {"weights": torch.ones(1)}),
        "it is not a MiniGPT checkpoint",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_newest_good_one_is_loaded_and_named_when_the_newest_is_damaged(name: str, tmp_path: Path) -> None:
    good, newest = saved(tmp_path, 3), saved(tmp_path, 20)
    damage, told = DAMAGES[name]
    damage(newest)
    for healthy in (False, True):
        loaded = load_newest(tmp_path, healthy=healthy)
        assert (loaded.path, loaded.state["step"]) == (good, 3)
        assert len(loaded.damaged) == 1
        assert loaded.damaged[0].startswith(f"{newest}: ")
        assert told in loaded.damaged[0]
        assert "\n" not in loaded.damaged[0]
    with pytest.raises(CheckpointError, match=told) as caught:
        load_given(newest)
    assert str(caught.value).endswith(f"; the newest good one is {good}")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read every file")
def test_file_without_the_right_to_read_it_is_passed_over(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    saved(tmp_path, 20).chmod(0)
    loaded = load_newest(tmp_path)
    assert loaded.state["step"] == 3
    assert "it cannot be opened: Permission denied" in loaded.damaged[0]


def test_nothing_is_named_when_no_other_is_good(tmp_path: Path) -> None:
    paths = [saved(tmp_path, step) for step in (3, 20)]
    for path in paths:
        flip(path, 200)
    with pytest.raises(CheckpointError, match="; no other checkpoint of its folder is good"):
        load_given(paths[1])


def test_glance_reads_a_file_anew_when_it_changed_and_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    monkeypatch.setattr("minigpt.checkpoint.digest._CLOCK_TICK_NS", -1)  # old enough to be remembered
    assert is_good(path)
    with monkeypatch.context() as patched:
        patched.setattr("minigpt.checkpoint.digest._check", lambda *_: pytest.fail("read again"))
        assert is_good(path)
    before = path.stat()
    flip(path, 200)
    # Its time of writing may be forged, that of its change not.
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not is_good(path)


def test_glance_trusts_nothing_that_may_have_changed_within_a_tick_of_the_clock(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert is_good(path)
    with path.open("r+b") as file:
        file.seek(200)
        file.write(b"?")
    assert not is_good(path)
    assert damage_in(path) == "its content does not match its checksum"
