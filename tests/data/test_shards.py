"""shards: one long array, whatever the borders."""

import hashlib
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from minigpt.data.blocks import BLOCK_BYTES, StoredFile
from minigpt.data.manifest import PartInfo
from minigpt.data.prepare import prepare
from minigpt.data.shards import DocumentIndex, ShardWriter, Tokens, token_dtype
from minigpt.data.windows import Windows
from tests.data.conftest import MakeTokens, data_config


def test_tokens_slice_across_shard_borders(make_tokens: MakeTokens) -> None:
    tokens = make_tokens(range(20))
    for start in range(20):
        for stop in range(start, 21):
            assert tokens[start:stop].tolist() == list(range(start, stop))
    assert tokens[:].tolist() == tokens[0:99].tolist() == list(range(20))
    assert tokens[5:2].tolist() == []


def test_dtype_is_the_smallest_that_holds_every_id() -> None:
    assert [token_dtype(size).name for size in (257, 65_536, 65_537)] == ["uint16", "uint16", "uint32"]


def test_index_finds_the_document_of_a_token(tmp_path: Path, cache: Path) -> None:
    names = ("a.txt", "ü.txt", *(f"{number:04d}.txt" for number in range(1000)))
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / name).write_text("x" * (1 + number % 3), encoding="utf-8")
    prepared = prepare(data_config(folder, cache, validation_fraction=0.001))
    ends = prepared.train[:] == prepared.manifest.end_of_text_id
    document = np.concatenate([[0], np.cumsum(ends)[:-1]])
    index = DocumentIndex(prepared.folder, "train")
    found = [index.at(token) for token in range(len(prepared.train))]
    order = list(dict.fromkeys(name for name, _ in found))
    assert order == [name for name in sorted(names) if name in order]
    assert len(order) == prepared.manifest.train.documents == document[-1] + 1
    assert [order.index(name) for name, _ in found] == document.tolist()
    firsts = np.searchsorted(document, document)
    assert [offset for _, offset in found] == (np.arange(len(document)) - firsts).tolist()


def test_of_a_hundred_gigabytes_only_what_is_asked_for_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard_tokens, count = 10**9, 50
    size = 2 * shard_tokens
    checksums = np.full(-(-size // BLOCK_BYTES), zlib.crc32(bytes(BLOCK_BYTES)), "<u4")
    checksums[-1] = zlib.crc32(bytes(size % BLOCK_BYTES))
    (tmp_path / "all.crc").write_bytes(checksums.tobytes())
    vouching = hashlib.sha256(checksums.tobytes()).hexdigest()
    shards = []
    for number in range(count):
        path = tmp_path / f"train_{number}.bin"
        with path.open("wb") as file:
            file.truncate(size)  # sparse: takes no space
        path.with_suffix(".crc").hardlink_to(tmp_path / "all.crc")
        shards.append(StoredFile(file=path.name, bytes=size, sha256="", checksums_sha256=vouching))
    info = PartInfo(
        tokens=count * shard_tokens,
        documents=1,
        bytes=1,
        shards=tuple(shards),
        index=shards[0],
        names=shards[0],
    )
    read: list[int] = []
    really = os.pread

    def counted(descriptor: int, count: int, offset: int) -> bytes:
        data = really(descriptor, count, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    windows = Windows(Tokens(tmp_path, "train", info, np.dtype("<u2"), 257), 1024)
    assert read == []
    windows.get(len(windows) - 1)
    of_a_shard = 2 * BLOCK_BYTES + checksums.nbytes
    assert 0 < sum(read) <= of_a_shard


def test_few_files_are_open_however_many_shards_there_are(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "train", np.dtype("<u2"), shard_tokens=4) as writer:
        writer.append(np.arange(1200, dtype=np.uint16), 1200)
        info = writer.finish()
    tokens = Tokens(tmp_path, "train", info, np.dtype("<u2"), 1200)
    before = len(list(Path("/dev/fd").iterdir()))
    for start in range(0, 1200, 4):
        assert tokens[start : start + 4].tolist() == list(range(start, start + 4))
    assert len(info.shards) == 300
    assert len(list(Path("/dev/fd").iterdir())) - before <= 64
