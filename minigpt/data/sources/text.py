"""Plain text files as documents: one file, one document, read in bounded pieces."""

import codecs
import gzip
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from minigpt.data.document import PIECE_CHARACTERS, Document, Skipped
from minigpt.data.sources.files import open_regular

_READ_BYTES = PIECE_CHARACTERS
_MOST_RATIO = 200
_ALWAYS_UNPACKED = 64 << 20


@contextmanager
def open_maybe_gzip(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed where its name ends in .gz."""
    with open_regular(path) as file:
        if path.suffix.lower() == ".gz":
            with gzip.GzipFile(fileobj=file) as decompressed:
                raw = _Unpacked(decompressed, os.fstat(file.fileno()).st_size)
                yield cast(IO[bytes], io.BufferedReader(raw, _READ_BYTES))
        else:
            yield file


class _Unpacked(io.RawIOBase):
    """What a compressed file unpacks to, as far as it is in proportion to its size; EOFError where it is not."""

    def __init__(self, file: gzip.GzipFile, packed_bytes: int) -> None:
        self._file = file
        self._left = most_unpacked(packed_bytes)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # read would go on until the buffer is full: an error further on would take what comes before with it.
        data = self._file.read1(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise EOFError("a decompression bomb")
        buffer[: len(data)] = data
        return len(data)


def most_unpacked(packed_bytes: int) -> int:
    """Bytes of text that a compressed file of this size may hold: text shrinks to a tenth, a bomb to a thousandth."""
    return max(_ALWAYS_UNPACKED, _MOST_RATIO * packed_bytes)


def read_text(path: Path, name: str, text_field: str, skipped: Skipped) -> Iterator[Document]:
    """The file as one document (a byte order mark is dropped, line ends stay); unusable ones are counted."""
    del text_field
    if (reason := _reason_to_skip(path)) is not None:
        skipped.add(reason, name)
        return
    position = 0
    waiting: Document | None = None
    for text in _pieces(path):
        if waiting is not None:
            yield waiting
        waiting = Document(text, name, position, last=False)
        position += len(text)
    if waiting is not None:
        yield Document(waiting.text, name, waiting.offset, last=True)


def _reason_to_skip(path: Path) -> str | None:
    """Why the file is no text; looks at all of it, because a document must not turn out broken half way."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = 0
    with open_maybe_gzip(path) as file:
        try:
            while block := file.read(_READ_BYTES):
                if size == 0 and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    return "UTF-16, not UTF-8 text"
                if b"\0" in block:
                    return "binary (NUL bytes)"
                decoder.decode(block)
                size += len(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "not UTF-8 text"
    return "empty" if size == 0 or (size == 3 and _is_only_a_mark(path)) else None


def _is_only_a_mark(path: Path) -> bool:
    with open_maybe_gzip(path) as file:
        return file.read(3) == codecs.BOM_UTF8


def _pieces(path: Path) -> Iterator[str]:
    """Non-empty pieces of the text, cut at line ends where there are any; a short text is one."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    rest = ""
    with open_maybe_gzip(path) as file:
        while block := file.read(_READ_BYTES):
            text = rest + decoder.decode(block)
            if len(text) < PIECE_CHARACTERS:
                rest = text
                continue
            # A line longer than a piece is cut where it stands, or one giant line would fill the memory.
            cut = text.rfind("\n") + 1 or len(text)
            yield text[:cut]
            rest = text[cut:]
    if rest := rest + decoder.decode(b"", final=True):
        yield rest
