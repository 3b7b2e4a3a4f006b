"""Token ids on disk: written once in shards, read through memory maps from anywhere."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from minigpt.data.manifest import PartInfo, Shard

TokenArray = npt.NDArray[np.unsignedinteger[Any]]

SHARD_TOKENS = 1 << 26
_INDEX_DTYPE = np.dtype("<u8")


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned integer that holds every id."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class ShardWriter:
    """Writes one part's tokens, and an index of the documents they came from, into a folder."""

    def __init__(
        self, folder: Path, part: str, dtype: np.dtype[Any], shard_tokens: int = SHARD_TOKENS
    ) -> None:
        self._folder, self._part, self._dtype, self._shard_tokens = folder, part, dtype, shard_tokens
        self._shards: list[Shard] = []
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._in_shard = 0
        self._tokens = self._documents = self._bytes = self._name_bytes = 0
        self._index = (folder / f"{part}.documents").open("wb")
        self._names = (folder / f"{part}.names").open("wb")

    def start_document(self, name: str) -> None:
        """The tokens that follow belong to this document."""
        encoded = name.encode("utf-8", "replace")
        self._index.write(np.array([self._tokens, self._name_bytes], _INDEX_DTYPE).tobytes())
        self._names.write(encoded)
        self._documents += 1
        self._name_bytes += len(encoded)

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
        self._close_shard()
        self.close()
        return PartInfo(
            tokens=self._tokens, documents=self._documents, bytes=self._bytes, shards=tuple(self._shards)
        )

    def close(self) -> None:
        """Closes the files, finished or not."""
        for file in (self._file, self._index, self._names):
            if file is not None:
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, tokens: TokenArray) -> None:
        if self._file is None:
            self._file = (self._folder / f"{self._part}_{len(self._shards):05d}.bin").open("wb")
        data = tokens.astype(self._dtype, copy=False).tobytes()
        self._file.write(data)
        self._digest.update(data)
        self._in_shard += len(tokens)
        if self._in_shard == self._shard_tokens:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._shards.append(
            Shard(file=Path(self._file.name).name, tokens=self._in_shard, sha256=self._digest.hexdigest())
        )
        self._file, self._digest, self._in_shard = None, hashlib.sha256(), 0


class Tokens:
    """The tokens of one part as one long array that lies on disk: `len(tokens)`, `tokens[start:stop]`."""

    def __init__(self, folder: Path, part: str, info: PartInfo, dtype: np.dtype[Any]) -> None:
        self.part = part
        self._dtype = dtype
        self._maps: list[TokenArray] = [
            np.memmap(folder / shard.file, dtype=dtype, mode="r", shape=(shard.tokens,))
            for shard in info.shards
        ]
        self._starts = np.cumsum([0, *(shard.tokens for shard in info.shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, span: slice) -> TokenArray:
        """A copy of the tokens in [start, stop), across shard borders."""
        start, stop, step = span.indices(len(self))
        assert step == 1, "only contiguous spans"
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts: list[TokenArray] = []
        while start < stop:
            end = min(stop, int(self._starts[first + 1]))
            base = int(self._starts[first])
            parts.append(np.array(self._maps[first][start - base : end - base]))
            start, first = end, first + 1
        return np.concatenate(parts) if parts else np.empty(0, self._dtype)


class DocumentIndex:
    """Which document a token of one part came from; the index stays on disk."""

    def __init__(self, folder: Path, part: str) -> None:
        self._rows = np.memmap(folder / f"{part}.documents", dtype=_INDEX_DTYPE, mode="r").reshape(-1, 2)
        self._names = folder / f"{part}.names"

    def at(self, token: int) -> tuple[str, int]:
        """Name of the document that holds the token at this position, and the token's offset within it."""
        row = int(np.searchsorted(self._rows[:, 0], token, side="right")) - 1
        assert row >= 0, "a token before the first document"
        start, name_start = (int(value) for value in self._rows[row])
        name_end = int(self._rows[row + 1, 1]) if row + 1 < len(self._rows) else None
        with self._names.open("rb") as file:
            file.seek(name_start)
            name = file.read() if name_end is None else file.read(name_end - name_start)
        return name.decode("utf-8"), token - start
