"""prepare: from a corpus to shards, all or nothing, once."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from minigpt.data import progress
from minigpt.data.prepare import Prepared, prepare
from minigpt.data.progress import PreparationStoppedError, Tick
from minigpt.data.shards import ShardWriter, TokenArray
from minigpt.data.sources import files
from minigpt.errors import DataError
from tests.data.conftest import data_config


def entries(cache: Path) -> list[str]:
    folder = cache / "prepared"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def everything(prepared: Prepared) -> str:
    tokenizer = prepared.tokenizer()
    return tokenizer.decode(prepared.train[:].tolist()) + tokenizer.decode(prepared.validation[:].tolist())


def test_prepare_keeps_every_document_once(corpus: Path, cache: Path) -> None:
    prepared = prepare(data_config(corpus, cache, validation_fraction=0.1))
    texts = sorted(everything(prepared).removesuffix("<|endoftext|>").split("<|endoftext|>"))
    assert texts == sorted(f"document {number}\n" * 20 for number in range(30))
    manifest = prepared.manifest
    assert (manifest.train.documents, manifest.validation.documents) == (27, 3)
    assert manifest.train.bytes + manifest.validation.bytes == sum(
        path.stat().st_size for path in corpus.iterdir()
    )
    assert manifest.train.tokens == len(prepared.train) == manifest.train.bytes + 27
    assert prepared.bytes_per_token("train") == manifest.train.bytes / manifest.train.tokens
    assert prepared.train[:].dtype == np.uint16


def test_prepare_says_where_a_token_came_from(corpus: Path, cache: Path) -> None:
    prepared = prepare(data_config(corpus, cache))
    name, offset = prepared.document_at(1000)
    text = prepared.tokenizer().decode(prepared.train[1000 - offset : 1000].tolist())
    assert (corpus / name).read_text().startswith(text)


def test_prepare_takes_the_end_of_a_single_file_for_validation(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "input.txt").write_text("".join(f"line {number}\n" for number in range(100)))
    prepared = prepare(data_config(tmp_path / "input.txt", cache, validation_fraction=0.1))
    assert prepared.tokenizer().decode(prepared.validation[:].tolist()).startswith("line 9")
    assert everything(prepared).replace("<|endoftext|>", "") == (tmp_path / "input.txt").read_text()
    assert prepared.manifest.split == "tails"


def test_prepare_is_cached_until_the_content_changes(corpus: Path, cache: Path, tmp_path: Path) -> None:
    first = prepare(data_config(corpus, cache))
    assert prepare(data_config(corpus, cache)).folder == first.folder
    os.utime(corpus / "03.txt", ns=(1, 1))
    assert prepare(data_config(corpus, cache)).folder == first.folder
    corpus.rename(tmp_path / "moved")
    assert prepare(data_config(tmp_path / "moved", cache)).folder == first.folder
    (tmp_path / "moved" / "03.txt").write_text("changed\n")
    assert prepare(data_config(tmp_path / "moved", cache)).folder != first.folder
    (tmp_path / "moved" / "03.txt").unlink()
    assert len({prepare(data_config(tmp_path / "moved", cache)).folder for _ in range(2)}) == 1
    assert len(entries(cache)) == 3


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"validation_fraction": 0.2}, {"max_documents": 25}, {"tokenizer": {"vocab_size": 270}}],
)
def test_prepare_has_an_entry_for_each_setting_that_matters(
    corpus: Path, cache: Path, change: dict[str, object]
) -> None:
    folder = prepare(data_config(corpus, cache)).folder
    assert prepare(data_config(corpus, cache, **change)).folder != folder
    assert prepare(data_config(corpus, cache, num_workers=1)).folder == folder


def test_prepare_gives_the_same_bytes_for_any_number_of_workers(corpus: Path, tmp_path: Path) -> None:
    (corpus / "long.txt").write_text("a long document\n" * 200_000)
    tokenizer = {"kind": "bpe", "vocab_size": 280}
    made = [
        prepare(
            data_config(corpus, tmp_path / f"cache{workers}", num_workers=workers, tokenizer=tokenizer)
        ).manifest
        for workers in (1, 3)
    ]
    assert made[0].train == made[1].train
    assert made[0].validation == made[1].validation
    assert made[0].tokenizer_id == made[1].tokenizer_id


def test_prepare_mends_a_damaged_entry(corpus: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = prepare(data_config(corpus, cache))
    shard = prepared.folder / prepared.manifest.train.shards[0].file
    good = shard.read_bytes()
    for damage in (lambda: shard.write_bytes(good[:-2]), shard.unlink, prepared.tokenizer_path.unlink):
        damage()
        assert prepare(data_config(corpus, cache)).manifest.train == prepared.manifest.train
        assert shard.read_bytes() == good
        assert "damaged (" in capsys.readouterr().err


@pytest.mark.parametrize("answers", [0, 40, 61])  # while it reads, counts and tokenizes thirty files
def test_prepare_stops_when_asked_and_leaves_nothing(corpus: Path, cache: Path, answers: int) -> None:
    left = iter(range(answers))
    with pytest.raises(PreparationStoppedError):
        prepare(data_config(corpus, cache), should_stop=lambda: next(left, None) is None)
    assert entries(cache) == []
    assert "TOKENIZERS_PARALLELISM" not in os.environ


def test_prepare_stops_when_asked_while_a_source_hangs(
    corpus: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    works = threading.Event()

    def hanging(path: Path, tick: Tick) -> str:
        works.wait()
        return ""

    monkeypatch.setattr(files, "_content_sha256", hanging)
    for name, seconds in (("PATIENCE_SECONDS", 0.1), ("_QUIET_SECONDS", 0.3), ("_GRACE_SECONDS", 0.1)):
        monkeypatch.setattr(progress, name, seconds)
    with pytest.raises(PreparationStoppedError):
        prepare(data_config(corpus, cache), should_stop=lambda: True)
    works.set()
    assert entries(cache) == []
    assert capsys.readouterr().err.count("reading the corpus: nothing read for 0 seconds: a stuck disk") == 1


def test_a_remembered_fingerprint_with_a_flipped_bit_is_computed_anew(corpus: Path, cache: Path) -> None:
    folder = prepare(data_config(corpus, cache)).folder
    (remembered,) = (cache / "fingerprints").iterdir()
    good = remembered.read_bytes()
    for place in (0, len(good) // 2, len(good) - 1):
        remembered.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert prepare(data_config(corpus, cache)).folder == folder
        assert remembered.read_bytes() == good


def test_prepare_notices_a_corpus_that_changes_meanwhile(corpus: Path, cache: Path) -> None:
    asked = 0

    def meddle() -> bool:
        nonlocal asked
        asked += 1
        if asked == 61:
            (corpus / "00.txt").write_text("changed")
        return False

    with pytest.raises(DataError, match="changed while it was being prepared"):
        prepare(data_config(corpus, cache), should_stop=meddle)
    assert entries(cache) == []


def test_prepare_says_so_when_the_disk_is_full(
    corpus: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(writer: ShardWriter, tokens: TokenArray, text_bytes: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "append", full)
    with pytest.raises(DataError, match="no space left on the disk of the cache folder"):
        prepare(data_config(corpus, cache))
    assert entries(cache) == []


def test_prepare_says_so_when_the_cache_cannot_be_written(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match=r"cache folder .* cannot be written: Not a directory; set data.cache_dir"
    ):
        prepare(data_config(corpus, tmp_path / "file"))


def test_prepare_leaves_its_own_cache_out_of_the_corpus(corpus: Path) -> None:
    first = prepare(data_config(corpus, corpus / "cache"))
    assert prepare(data_config(corpus, corpus / "cache")).folder == first.folder
    assert first.manifest.train.documents + first.manifest.validation.documents == 30


@pytest.mark.parametrize(
    ("text", "message"),
    [("", r"no usable text; skipped 1 empty \(a.txt\)"), ("x", "the corpus is too small: .* for train")],
)
def test_prepare_says_so_when_there_is_too_little_text(
    tmp_path: Path, cache: Path, text: str, message: str
) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        prepare(data_config(tmp_path / "a.txt", cache))
    assert entries(cache) == []


PREPARE = (
    "import sys; from minigpt.data.config import *; from minigpt.data.prepare import prepare\n"
    "kind = TokenizerConfig(kind='bytes')\n"
    "config = DataConfig(source=sys.argv[1], cache_dir=sys.argv[2], tokenizer=kind)\n"
    "print(prepare(config).folder.name, flush=True)\n"
)


def start(corpus: Path, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREPARE, str(corpus), str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_two_processes_prepare_the_same_at_once(corpus: Path, cache: Path) -> None:
    (corpus / "long.txt").write_text("a long document\n" * 100_000)
    children = [start(corpus, cache) for _ in range(2)]
    names = {child.communicate(timeout=60)[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0]
    assert entries(cache) == sorted(names)
    assert len(names) == 1


def test_a_killed_prepare_leaves_nothing_that_stays(corpus: Path, cache: Path) -> None:
    (corpus / "long.txt").write_text("a long document\n" * 500_000)
    with start(corpus, cache) as child:
        deadline = time.monotonic() + 30
        while not entries(cache) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
    assert [name for name in entries(cache) if not name.startswith(".")] == []
    folder = prepare(data_config(corpus, cache)).folder
    assert entries(cache) == [folder.name]
