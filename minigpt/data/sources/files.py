"""A corpus of files: their listing, their fingerprint, their documents."""

import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from minigpt.data.document import Document, Skipped
from minigpt.data.progress import Tick
from minigpt.errors import DataError

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
            name, whole, ended = printable(file.name), 0, True
            try:
                for document in self.reader_of(file.path.name)(file.path, name, self.text_field, skipped):
                    whole, ended = whole + document.last, document.last
                    yield document
            except (OSError, EOFError, zlib.error) as error:  # vanished, no permission, a broken .gz
                if not ended:
                    raise DataError(
                        f"{file.path} could be read once and not again ({error}): bring its disk back, or take it "
                        "out of data.source"
                    ) from error
                skipped.add("unreadable", f"{name} after {whole:,} documents" if whole else name)

    def state(self) -> str:
        """Digest of all paths, sizes and modification times: cheap, and changes whenever a file does."""
        digest = hashlib.sha256()
        for file in self.files:
            try:
                status = file.path.stat()
                seen = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
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


def open_regular(path: Path) -> IO[bytes]:
    """The file's bytes; OSError for what is no regular file: opening a pipe waits for ever, a device never ends."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def printable(name: str) -> str:
    """A file name fit for messages: one line, undecodable bytes and what would steer a terminal replaced."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _content_sha256(path: Path, tick: Tick) -> str:
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            # Not to its end: a file that grows as fast as it is read has none.
            left = os.fstat(file.fileno()).st_size
            while block := file.read(min(left, _HASH_BLOCK_BYTES)):
                left -= len(block)
                digest.update(block)
                tick(len(block))
    except OSError:
        return "unreadable"
    return digest.hexdigest()
