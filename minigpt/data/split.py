"""Which document, or which end of a document, is for validation: decided by content, everywhere alike."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

from minigpt.data.document import Document
from minigpt.data.progress import Tick

Part = Literal["train", "validation"]
PARTS: tuple[Part, ...] = ("train", "validation")
SplitKind = Literal["documents", "tails"]

_FEW_DOCUMENTS = 20
_MOST_COUNTED = 1_000_000
_HASH_RANGE = 1 << 64


@dataclass(frozen=True)
class SplitByHash:
    """Documents whose content hashes below the threshold are for validation: duplicates land together."""

    seed: int
    threshold: int

    kind: ClassVar[SplitKind] = "documents"

    @property
    def is_empty(self) -> bool:
        """Whether there are no documents at all."""
        return False

    def parts(self, documents: Iterable[Document]) -> Iterator[tuple[Part, Document]]:
        """Each piece with its part; the first piece decides for its document."""
        part: Part = "train"
        for document in documents:
            if document.offset == 0:
                part = "validation" if content_hash(document.text, self.seed) < self.threshold else "train"
            yield part, document


@dataclass(frozen=True)
class SplitByTail:
    """The end of every document is for validation: for a corpus of few documents, such as one input.txt."""

    cuts: tuple[int, ...]
    """Of each document, in characters: where its tail starts, before moving on to a line end."""

    kind: ClassVar[SplitKind] = "tails"

    @property
    def is_empty(self) -> bool:
        """Whether there are no documents at all."""
        return not self.cuts

    def parts(self, documents: Iterable[Document]) -> Iterator[tuple[Part, Document]]:
        """Each piece with its part; the piece with the cut comes as two."""
        cuts = iter(self.cuts)
        cut, in_tail = 0, False
        for document in documents:
            if document.offset == 0:
                # More documents than were counted: the corpus is being changed, prepare() will notice.
                cut, in_tail = next(cuts, 0), False
            end = document.offset + len(document.text)
            if in_tail:
                yield "validation", document
            elif end <= cut:
                yield "train", document
            else:
                in_tail = True
                yield from _cut(document, cut - document.offset)


Split = SplitByHash | SplitByTail


def plan_split(documents: Iterable[Document], fraction: float, seed: int, tick: Tick) -> Split:
    """How to split these documents; reads only as many as it takes to know that chance alone will do."""
    enough = math.ceil(min(_MOST_COUNTED, 50 / fraction))
    hashes: list[int] = []
    sizes: list[int] = []
    for document in documents:
        tick(len(document.text))
        if document.offset == 0:
            hashes.append(content_hash(document.text, seed))
            sizes.append(0)
            if len(hashes) > enough:
                return SplitByHash(seed, int(fraction * _HASH_RANGE))
        sizes[-1] += len(document.text)
    if len(hashes) < _FEW_DOCUMENTS:
        return SplitByTail(tuple(size - math.ceil(size * fraction) for size in sizes))
    # So few documents that the hash alone could leave none: take exactly the lowest ones.
    lowest = max(1, round(len(hashes) * fraction))
    return SplitByHash(seed, sorted(hashes)[lowest - 1] + 1)


def content_hash(text: str, seed: int) -> int:
    """A number in [0, 2**64) from the text and the seed alone."""
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8, key=_hash_key(seed))
    return int.from_bytes(digest.digest(), "little")


@lru_cache(maxsize=8)
def _hash_key(seed: int) -> bytes:
    return hashlib.sha256(str(seed).encode()).digest()


def _cut(document: Document, at: int) -> Iterator[tuple[Part, Document]]:
    """The piece in two: at the next line end, else at the last one before, else right there.

    A line end counts only where it leaves between half and twice the tail: a text of very long lines would else give
    nearly all of itself to validation, or nothing.
    """
    text, at = document.text, max(at, 0)
    tail = len(text) - at
    after, before = text.find("\n", at) + 1, text.rfind("\n", 0, at) + 1
    cut = at
    if after and after - at <= tail / 2:
        cut = after
    elif before and at - before <= tail:
        cut = before
    if cut > 0 or document.offset > 0:
        # Even an empty head ends the pieces before it.
        yield "train", Document(text[:cut], document.name, document.offset, last=True)
    if cut < len(text):
        yield (
            "validation",
            Document(text[cut:], document.name, document.offset + cut, last=document.last),
        )
