"""A bounded, deterministic part of a corpus to train a tokenizer on."""

from collections.abc import Iterable

from minigpt.data.corpus import Corpus
from minigpt.data.document import Document, Skipped
from minigpt.data.progress import Tick
from minigpt.data.split import content_hash

SAMPLE_CHARACTERS = 64 << 20
_SAMPLE_SEED = 0
_HASH_RANGE = 1 << 64


def sample_texts(corpus: Corpus, tick: Tick, limit: int = SAMPLE_CHARACTERS) -> list[str]:
    """At most `limit` characters of pieces, spread evenly; the first ones where reading is a download."""
    documents = corpus.documents(Skipped())
    if corpus.is_remote:
        return _first(documents, limit, tick)
    return _spread(documents, limit, tick)


def _first(documents: Iterable[Document], limit: int, tick: Tick) -> list[str]:
    texts: list[str] = []
    characters = 0
    for document in documents:
        tick(len(document.text))
        if texts and characters + len(document.text) > limit:
            break
        texts.append(document.text)
        characters += len(document.text)
    return texts


def _spread(documents: Iterable[Document], limit: int, tick: Tick) -> list[str]:
    """Pieces with a hash below a threshold, which halves whenever they become too many: even, in one pass."""
    kept: list[tuple[int, str]] = []
    characters = 0
    threshold = _HASH_RANGE
    for number, document in enumerate(documents):
        tick(len(document.text))
        # Of its number, not its text: equal texts would all leave at once.
        place = content_hash(str(number), _SAMPLE_SEED)
        if place >= threshold:
            continue
        kept.append((place, document.text))
        characters += len(document.text)
        while characters > limit and len(kept) > 1:
            threshold //= 2
            kept = [(place, text) for place, text in kept if place < threshold]
            characters = sum(len(text) for _, text in kept)
    return [text for _, text in kept]
