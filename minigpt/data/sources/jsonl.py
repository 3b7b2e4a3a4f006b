"""JSON Lines (also gzipped): each line an object, its text in one named field."""

import json
from collections.abc import Iterator
from pathlib import Path

from minigpt.data.document import Document, Skipped, record
from minigpt.data.sources.text import open_maybe_gzip

_LONGEST_LINE_BYTES = 256 << 20
_READ_BYTES = 1 << 20


def read_jsonl(path: Path, name: str, text_field: str, skipped: Skipped) -> Iterator[Document]:
    """One document a line, named `file:line`; lines that are no such object are counted and passed over."""
    with open_maybe_gzip(path) as file:
        number = 0
        while line := file.readline(_LONGEST_LINE_BYTES):
            number += 1
            here = f"{name}:{number}"
            if len(line) == _LONGEST_LINE_BYTES and not line.endswith(b"\n"):
                skipped.add("longer than 256 MiB in one line", here)
                del line
                while (rest := file.readline(_READ_BYTES)) and not rest.endswith(b"\n"):
                    pass
                continue
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
                skipped.add("not JSON", here)
                continue
            text = value.get(text_field) if isinstance(value, dict) else None
            yield from record(text, text_field, here, skipped)
