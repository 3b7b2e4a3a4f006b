"""Documents to token arrays, on several threads, in the order in which they came."""

import os
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigpt.data.document import Document, utf8_bytes
from minigpt.data.shards import TokenArray
from minigpt.data.split import PARTS, Part
from minigpt.data.tokenizer import Tokenizer

_BATCH_CHARACTERS = 1 << 18


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of one part's pieces, end to end; where a document ends, with the end-of-text token."""

    part: Part
    pieces: list[tuple[str, int, bool]]
    """Of each piece: its document's name, where its tokens begin in `tokens`, and whether the document ends with it."""
    tokens: TokenArray
    text_bytes: int


def encode_documents(
    parts: Iterable[tuple[Part, Document]],
    tokenizer: Tokenizer,
    dtype: np.dtype[Any],
    num_workers: int,
) -> Generator[Encoded]:
    """The pieces' tokens, those of each part in the given order for any number of workers.

    Several pieces at a time, because what Python does for each counts where documents are short; holds a few batches
    for each worker in memory.
    """
    # Threads, because the tokenizers library works outside the GIL: as fast as processes (measured), with
    # nothing to fork beside torch's threads. Each has its own copy, so that none waits for another's cache.
    local = threading.local()

    def load_copy() -> None:
        local.tokenizer = Tokenizer(tokenizer.to_json())

    def encode(batch: list[tuple[Part, Document]]) -> list[Encoded]:
        return _encode_batch(batch, local.tokenizer, dtype)

    waiting: deque[Future[list[Encoded]]] = deque()
    with _library_threads_off(), ThreadPoolExecutor(num_workers, "tokenize", load_copy) as pool:
        try:
            for batch in _batches(parts):
                waiting.append(pool.submit(encode, batch))
                if len(waiting) > 2 * num_workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def usable_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _encode_batch(
    batch: list[tuple[Part, Document]], tokenizer: Tokenizer, dtype: np.dtype[Any]
) -> list[Encoded]:
    ids_of = tokenizer.encode_batch([document.text for _, document in batch])
    encoded = []
    for part in PARTS:
        pieces: list[tuple[str, int, bool]] = []
        tokens: list[int] = []
        text_bytes = 0
        for (own, document), ids in zip(batch, ids_of, strict=True):
            if own != part:
                continue
            pieces.append((document.name, len(tokens), document.last))
            tokens += ids
            if document.last:
                tokens.append(tokenizer.end_of_text_id)
            text_bytes += utf8_bytes(document.text)
        if pieces:
            encoded.append(Encoded(part, pieces, np.array(tokens, dtype), text_bytes))
    return encoded


def _batches(parts: Iterable[tuple[Part, Document]]) -> Iterator[list[tuple[Part, Document]]]:
    batch: list[tuple[Part, Document]] = []
    characters = 0
    for part, document in parts:
        batch.append((part, document))
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@contextmanager
def _library_threads_off() -> Iterator[None]:
    """Keeps the tokenizers library from adding its own threads to ours, which costs a third of the speed."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
