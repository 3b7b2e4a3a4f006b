"""A corpus of files: their listing, their fingerprint, their documents."""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minigpt.data.document import Document, Skipped
from minigpt.data.progress import Tick

Reader = Callable[[Path, str, str, Skipped], Iterator[Document]]
"""(path, name, text field, skipped) -> documents."""

_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class CorpusFile:
    """A file of the corpus and the name it goes by: the same wherever the corpus lies."""

    path: Path
    name: str


@dataclass(frozen=True)
class FileCorpus:
    """Documents of a fixed list of files, in its order."""

    files: Sequence[CorpusFile]
    reader_of: Callable[[str], Reader]
    """The reader for a file name."""
    text_field: str
    is_remote: bool = False

    def documents(self, skipped: Skipped) -> Iterator[Document]:
        """Lazily, file after file; what cannot be read is counted in `skipped`."""
        for file in self.files:
            try:
                yield from self.reader_of(file.path.name)(
                    file.path, printable(file.name), self.text_field, skipped
                )
            except (OSError, EOFError, zlib.error):  # vanished, no permission, a broken .gz
                skipped.add("unreadable", printable(file.name))

    def state(self) -> str:
        """Digest of all paths, sizes and modification times: cheap, and changes whenever a file does."""
        digest = hashlib.sha256()
        for file in self.files:
            try:
                stat = file.path.stat()
                seen = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
            except OSError:
                seen = "unreadable"
            digest.update(os.fsencode(file.path) + b"\0" + os.fsencode(file.name) + f"\0{seen}\n".encode())
        return digest.hexdigest()

    def fingerprint(self, tick: Tick) -> str:
        """Digest of all names and contents: equal wherever the same corpus lies. Reads everything."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(os.fsencode(file.name) + b"\0" + _content_sha256(file.path, tick).encode() + b"\n")
        return digest.hexdigest()

    def size_bytes(self) -> int:
        """Bytes on disk: what the progress bar runs to."""
        total = 0
        for file in self.files:
            try:
                total += file.path.stat().st_size
            except OSError:
                continue
        return total


def printable(name: str) -> str:
    """A file name fit for messages: one line, undecodable bytes replaced."""
    return os.fsencode(name).decode("utf-8", "replace").replace("\n", "\ufffd")


def _content_sha256(path: Path, tick: Tick) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_HASH_BLOCK_BYTES):
                digest.update(block)
                tick(len(block))
    except OSError:
        return "unreadable"
    return digest.hexdigest()
