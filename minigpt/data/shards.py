"""Token ids on disk: written once in shards, read and verified from anywhere."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from minigpt.data.blocks import BLOCK_BYTES, BlockReader, BlockWriter, StoredFile, damaged
from minigpt.data.manifest import PartInfo, read_manifest
from minigpt.data.split import Part
from minigpt.visible import visible

TokenArray = npt.NDArray[np.unsignedinteger[Any]]

SHARD_TOKENS = 1 << 26
_INDEX_DTYPE = np.dtype("<u8")
_ROWS_PER_BLOCK = BLOCK_BYTES // (2 * _INDEX_DTYPE.itemsize)
_MOST_BLOCKS = 4096


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned integer that holds every id."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class ShardWriter:
    """Writes one part's tokens, and an index of the documents they came from, into a folder."""

    def __init__(
        self, folder: Path, part: str, dtype: np.dtype[Any], shard_tokens: int = SHARD_TOKENS
    ) -> None:
        self._folder, self._part, self._dtype, self._shard_tokens = folder, part, dtype, shard_tokens
        self._shards: list[StoredFile] = []
        self._shard: BlockWriter | None = None
        self._in_shard = 0
        self._tokens = self._documents = self._bytes = self._name_bytes = 0
        self._index = BlockWriter(folder / f"{part}.documents")
        self._names = BlockWriter(folder / f"{part}.names")

    def start_documents(self, names: Sequence[str], offsets: Sequence[int]) -> None:
        """Documents of these names begin so many tokens into what is appended next."""
        encoded = [name.encode("utf-8", "replace") for name in names]
        rows = np.empty((len(names), 2), _INDEX_DTYPE)
        rows[:, 0] = np.asarray(offsets, _INDEX_DTYPE) + self._tokens
        rows[:, 1] = self._name_bytes + np.cumsum([0, *map(len, encoded)])[:-1]
        self._index.write(rows.tobytes())
        self._names.write(written := b"".join(encoded))
        self._documents += len(names)
        self._name_bytes += len(written)

    def append(self, tokens: TokenArray, text_bytes: int) -> None:
        """Adds tokens that stand for `text_bytes` bytes of text."""
        self._bytes += text_bytes
        self._tokens += len(tokens)
        while len(tokens):
            space = self._shard_tokens - self._in_shard
            self._write(tokens[:space])
            tokens = tokens[space:]

    def finish(self) -> PartInfo:
        """Closes the files and returns what they hold."""
        self._finish_shard()
        return PartInfo(
            tokens=self._tokens,
            documents=self._documents,
            bytes=self._bytes,
            shards=tuple(self._shards),
            index=self._index.finish(),
            names=self._names.finish(),
        )

    def close(self) -> None:
        """Closes the files, finished or not."""
        for file in (self._shard, self._index, self._names):
            if file is not None:
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, tokens: TokenArray) -> None:
        if self._shard is None:
            self._shard = BlockWriter(self._folder / f"{self._part}_{len(self._shards):05d}.bin")
        self._shard.write(tokens.astype(self._dtype, copy=False).tobytes())
        self._in_shard += len(tokens)
        if self._in_shard == self._shard_tokens:
            self._finish_shard()

    def _finish_shard(self) -> None:
        if self._shard is not None:
            self._shards.append(self._shard.finish())
            self._shard, self._in_shard = None, 0


class Tokens:
    """The tokens of one part as one long array that lies on disk: `len(tokens)`, `tokens[start:stop]`."""

    def __init__(
        self, folder: Path, part: str, info: PartInfo, dtype: np.dtype[Any], vocab_size: int
    ) -> None:
        self.part = part
        self._folder, self._dtype, self._vocab_size = folder, dtype, vocab_size
        self._shards = info.shards
        self._reader = BlockReader(folder)
        self._starts = np.cumsum([0, *(shard.bytes // dtype.itemsize for shard in info.shards)])

    @property
    def reading(self) -> Path | None:
        """The file that is being read at this moment."""
        return self._reader.reading

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, span: slice) -> TokenArray:
        """A copy of the tokens in [start, stop), across shard borders.

        Raises:
            DataError: they cannot be read, are not as they were written, or are none of the vocabulary's.
        """
        start, stop, step = span.indices(len(self))
        assert step == 1, "only contiguous spans"
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts: list[TokenArray] = []
        while start < stop:
            end = min(stop, int(self._starts[first + 1]))
            base = int(self._starts[first])
            parts.append(self._read(self._shards[first], start - base, end - base))
            start, first = end, first + 1
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, self._dtype)

    def _read(self, shard: StoredFile, start: int, stop: int) -> TokenArray:
        size = self._dtype.itemsize
        tokens: TokenArray = np.frombuffer(self._reader.read(shard, start * size, stop * size), self._dtype)
        # A foreign id would be an index error far away, and on CUDA an assert that ends the process.
        if int(tokens.max()) >= self._vocab_size:
            place = start + int(np.argmax(tokens >= self._vocab_size))
            raise damaged(
                self._folder / shard.file,
                f"token {place:,} has the id {int(tokens.max())}, the vocabulary ends at {self._vocab_size - 1}",
            )
        return tokens


class DocumentIndex:
    """Which document a token of one part came from; the index stays on disk.

    Raises, when it is opened or asked:
        DataError: it cannot be read, or is not as it was written.
    """

    def __init__(self, folder: Path, part: Part) -> None:
        manifest = read_manifest(folder)
        self._info = manifest.train if part == "train" else manifest.validation
        self._reader = BlockReader(folder)
        self._index = folder / self._info.index.file
        self._blocks: dict[int, npt.NDArray[np.uint64]] = {}

    def at(self, token: int) -> tuple[str, int]:
        """Name of the document that holds the token at this position, and the token's offset within it."""
        row = bisect_right(range(self._info.documents), token, key=lambda row: self._row(row)[0]) - 1
        if row < 0:
            raise damaged(self._index, f"no document in it holds token {token:,}")
        start, name_start = self._row(row)
        is_last = row + 1 == self._info.documents
        name_end = self._info.names.bytes if is_last else self._row(row + 1)[1]
        name = self._reader.read(self._info.names, name_start, name_end)
        return visible(name.decode("utf-8", "replace")), token - start

    def _row(self, row: int) -> tuple[int, int]:
        """Where the document's tokens and its name begin."""
        block, place = divmod(row, _ROWS_PER_BLOCK)
        if block not in self._blocks:
            if len(self._blocks) == _MOST_BLOCKS:
                self._blocks.clear()
            end = min((block + 1) * BLOCK_BYTES, self._info.index.bytes)
            data = self._reader.read(self._info.index, block * BLOCK_BYTES, end)
            self._blocks[block] = np.frombuffer(data, _INDEX_DTYPE).reshape(-1, 2)
        start, name_start = self._blocks[block][place].tolist()
        return start, name_start
