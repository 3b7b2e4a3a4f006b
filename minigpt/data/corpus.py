"""All documents of a configuration in one fixed order, and the digest that names them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from minigpt.data.config import DataConfig
from minigpt.data.document import Document, Skipped
from minigpt.data.progress import Tick
from minigpt.data.sources.registry import Source, open_sources
from minigpt.errors import DataError


@dataclass(frozen=True)
class Corpus:
    """The documents of one or more sources, at most `max_documents` of them."""

    sources: Sequence[Source]
    max_documents: int | None

    @property
    def is_remote(self) -> bool:
        """Whether reading it twice means downloading it twice."""
        return any(source.is_remote for source in self.sources)

    def documents(self, skipped: Skipped) -> Iterator[Document]:
        """Lazily, source after source; what cannot be used is counted in `skipped`."""
        read = 0
        for source in self.sources:
            for document in source.documents(skipped):
                yield document
                read += document.last
                if read == self.max_documents:
                    return

    def state(self) -> str:
        """Cheap digest that changes whenever a file is added, removed or written."""
        return _joined([source.state() for source in self.sources])

    def fingerprint(self, tick: Tick) -> str:
        """Digest of names and contents: reads everything."""
        return _joined([source.fingerprint(tick) for source in self.sources])

    def size_bytes(self) -> int | None:
        """Bytes on disk, None where a source cannot say."""
        sizes = [source.size_bytes() for source in self.sources]
        return None if self.max_documents else _sum(sizes)


def open_corpus(config: DataConfig) -> Corpus:
    """The corpus that data.source names, listed but not yet read."""
    sources = open_sources(config)
    if not sources:
        raise DataError("data.source is an empty list; name at least one source, e.g. python-stdlib")
    return Corpus(sources, config.max_documents)


def _joined(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _sum(sizes: Sequence[int | None]) -> int | None:
    return None if any(size is None for size in sizes) else sum(size or 0 for size in sizes)
