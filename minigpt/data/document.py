"""What every source yields: documents, long ones in pieces cut at line ends; and what was skipped."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

PIECE_CHARACTERS = 1 << 18
_EXAMPLES_PER_REASON = 3


@dataclass(frozen=True, slots=True)
class Document:
    """A document, or one piece of a long one; pieces of a document follow each other directly."""

    text: str
    name: str
    """Where it came from: a file's name, `file.jsonl:12` (line), `file.parquet:12` (row)."""
    offset: int = 0
    """Characters of the same document before this piece."""
    last: bool = True
    """Whether the document ends here: only then an end-of-text token follows."""


@dataclass
class Skipped:
    """What could not be used, counted by reason, with the first few names of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, reason: str, name: str) -> None:
        """Counts one unusable file or record."""
        self.counts[reason] += 1
        if len(self.examples[reason]) < _EXAMPLES_PER_REASON:
            self.examples[reason].append(name)

    def __str__(self) -> str:
        return "; ".join(self._described(reason) for reason in sorted(self.counts))

    def _described(self, reason: str) -> str:
        count, names = self.counts[reason], self.examples[reason]
        more = ", ..." if count > len(names) else ""
        return f"{count:,} {reason} ({', '.join(names)}{more})"


def record(value: object, field_name: str, name: str, skipped: Skipped) -> Iterator[Document]:
    """The document of one record (a JSON line, a row): nothing, counted, where it is no usable text."""
    if not isinstance(value, str):
        skipped.add(f"without text in the field {field_name!r}", name)
    elif not value:
        skipped.add("empty", name)
    elif not _is_unicode(value):
        skipped.add("with broken Unicode", name)
    else:
        yield from pieces(value, name)


def pieces(text: str, name: str) -> Iterator[Document]:
    """`text` as one document in pieces of at most PIECE_CHARACTERS, cut at line ends where there are any."""
    start = 0
    while start < len(text):
        end = cut_at_line_end(text, start, start + PIECE_CHARACTERS)
        yield Document(text[start:end], name, start, last=end == len(text))
        start = end


def cut_at_line_end(text: str, start: int, limit: int) -> int:
    """The last position in (start, limit] after a line end; else `limit`, or the end of a shorter text."""
    if limit >= len(text):
        return len(text)
    return text.rfind("\n", start, limit) + 1 or limit


def utf8_bytes(text: str) -> int:
    """How long `text` is in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON can smuggle in lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
