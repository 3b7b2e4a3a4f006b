"""The way of the data: what a corpus of any size costs to open and to read, and that the measuring measures."""

import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from minigpt.data import blocks
from minigpt.data.loader import BatchLoader
from minigpt.data.order import permuted
from minigpt.data.prepare import Prepared, prepare
from minigpt.data.tokenizer import train_bpe
from minigpt.data.windows import Windows
from minigpt.errors import DataError
from minigpt.lab.data_path import tokenizing, waiting
from minigpt.lab.data_path.sparse import pretend_prepared

HUNDRED_GB_OF_TOKENS = 50 * 10**9


class Reads:
    """Counts what is read of prepared files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        own = blocks._Descriptor.read

        def read(descriptor: Any, start: int, count: int) -> bytes:
            data = own(descriptor, start, count)
            self.bytes += len(data)
            return data

        monkeypatch.setattr(blocks._Descriptor, "read", read)


def opened(folder: Path, tokens: int) -> Prepared:
    return prepare(pretend_prepared(folder, tokens), progress=False)


def test_a_hundred_gigabytes_open_without_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pretend_prepared(tmp_path, HUNDRED_GB_OF_TOKENS)
    reads = Reads(monkeypatch)
    prepared = prepare(config, progress=False)
    assert len(prepared.train) == HUNDRED_GB_OF_TOKENS
    # The manifest, with a line a shard, and its tokenizer.
    assert reads.bytes < 1 << 20
    # And a window costs its own blocks, and its shard's checksums the first time.
    windows = Windows(prepared.train, 1024)
    windows.get(len(windows) // 2)
    assert reads.bytes < 2 << 20
    before = reads.bytes
    windows.get(len(windows) // 2 + 10)
    assert reads.bytes - before <= 2 * blocks.BLOCK_BYTES


def peak_bytes(windows: Windows) -> int:
    """Of memory, while windows from all over are read."""
    loader = BatchLoader(windows, seed=0, micro_batch_size=4, grad_accum_steps=1)
    drawn = random.Random(0)
    tracemalloc.start()
    try:
        for _ in range(150):
            loader.step_at(drawn.randrange(len(windows)))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_whatever_the_size_of_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_MOST_CHECKSUM_BYTES", 1 << 20)  # of 16 shards
    small, large = (
        peak_bytes(Windows(opened(tmp_path / str(tokens), tokens).train, 256))
        for tokens in (HUNDRED_GB_OF_TOKENS // 25, HUNDRED_GB_OF_TOKENS)
    )
    # All checksums of the large one would be 50 MB.
    assert large < small + (1 << 20)
    assert large < 4 << 20


def test_order_of_a_trillion_windows_is_computed_for_those_asked_for() -> None:
    tracemalloc.start()
    size = 10**12
    places = [permuted(index, size, seed=1, epoch=2) for index in (0, 1, size // 2, size - 1)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(places)) == 4
    assert all(0 <= place < size for place in places)
    assert peak < 1 << 20


def test_a_damaged_block_of_a_pretended_corpus_is_noticed(tmp_path: Path) -> None:
    prepared = opened(tmp_path, 10**8)
    with (prepared.folder / "train_00000.bin").open("r+b") as file:
        file.write(b"\1")
    with pytest.raises(DataError, match="are not as they were written"):
        Windows(prepared.train, 64).get(0)


def test_waiting_is_measured_in_a_real_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("some text\n" * 4000)
    own = [
        *waiting.TINY,
        f"data.source={tmp_path / 'text.txt'}",
        f"data.cache_dir={tmp_path / 'cache'}",
        "data.tokenizer.kind=bytes",
        "data.tokenizer.vocab_size=257",
    ]
    (line,) = waiting.share_of_steps("tiny", "small", own, steps=4)
    assert line.split()[0] == "tiny"
    assert "% of all" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "text.txt"]


def test_tokenizing_is_compared_on_each_text(tmp_path: Path) -> None:
    with tokenizing.corpora(1) as sources:
        assert list(sources) == ["python-stdlib", "short texts", "one giant text"]
        tokenizer = Path(tmp_path, "tokenizer.json")
        train_bpe(["some text to learn a few pairs from " * 50], 280).save(tokenizer)
        head, *lines = tokenizing.compare(sources["short texts"], tokenizer, rounds=1)
    assert head.startswith("6,831 texts or pieces, 0.9 MB")
    assert [line.split()[0] for line in lines] == ["encode_batch", "encode_batch_fast", "minigpt"]
