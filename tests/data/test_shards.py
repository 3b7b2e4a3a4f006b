"""shards: one long array, whatever the borders."""

import time
from pathlib import Path

import numpy as np

from minigpt.data.manifest import PartInfo, Shard
from minigpt.data.shards import DocumentIndex, ShardWriter, Tokens, token_dtype
from minigpt.data.windows import Windows
from tests.data.conftest import MakeTokens


def test_tokens_slice_across_shard_borders(make_tokens: MakeTokens) -> None:
    tokens = make_tokens(range(20))
    for start in range(20):
        for stop in range(start, 21):
            assert tokens[start:stop].tolist() == list(range(start, stop))
    assert tokens[:].tolist() == tokens[0:99].tolist() == list(range(20))
    assert tokens[5:2].tolist() == []


def test_dtype_is_the_smallest_that_holds_every_id() -> None:
    assert [token_dtype(size).name for size in (257, 65_536, 65_537)] == ["uint16", "uint16", "uint32"]


def test_index_finds_the_document_of_a_token(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "train", np.dtype("<u4")) as writer:
        for name, count in (("a.txt", 3), ("ü.txt", 1), ("c.txt", 2)):
            writer.start_document(name)
            writer.append(np.zeros(count, np.uint32), count)
        writer.finish()
    index = DocumentIndex(tmp_path, "train")
    found = [index.at(token) for token in range(6)]
    assert found == [("a.txt", 0), ("a.txt", 1), ("a.txt", 2), ("ü.txt", 0), ("c.txt", 0), ("c.txt", 1)]


def test_a_hundred_gigabytes_open_at_once(tmp_path: Path) -> None:
    shard_tokens, count = 10**9, 50
    shards = []
    for number in range(count):
        path = tmp_path / f"train_{number}.bin"
        with path.open("wb") as file:
            file.truncate(2 * shard_tokens)  # sparse: takes no space
        shards.append(Shard(file=path.name, tokens=shard_tokens, sha256=""))
    info = PartInfo(tokens=count * shard_tokens, documents=1, bytes=1, shards=tuple(shards))
    began = time.perf_counter()
    windows = Windows(Tokens(tmp_path, "train", info, np.dtype("<u2")), 1024)
    windows.get(len(windows) - 1)
    assert time.perf_counter() - began < 1
