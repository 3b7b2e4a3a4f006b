"""A corpus made ready for training: tokenizer, token shards and manifest, in a cache keyed by content."""

import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

import minigpt
from minigpt.atomic import atomic_folder
from minigpt.data.cache import cache_folder, cached_fingerprint, entry_folder, writing_to
from minigpt.data.config import DataConfig
from minigpt.data.corpus import Corpus, open_corpus
from minigpt.data.document import Skipped
from minigpt.data.encode import encode_documents
from minigpt.data.manifest import (
    FORMAT,
    MANIFEST_NAME,
    TOKENIZER_NAME,
    Manifest,
    PartInfo,
    damage,
    read_manifest,
)
from minigpt.data.progress import Progress
from minigpt.data.sample import sample_texts
from minigpt.data.shards import DocumentIndex, ShardWriter, Tokens, token_dtype
from minigpt.data.split import Part, Split, plan_split
from minigpt.data.stopping import ShouldStop, never
from minigpt.data.tokenizer import Tokenizer, bytes_tokenizer, train_bpe
from minigpt.errors import DataError


@dataclass(frozen=True)
class Prepared:
    """A corpus ready for training; its tokens stay on disk, memory-mapped."""

    folder: Path
    manifest: Manifest
    train: Tokens
    validation: Tokens

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer.json that made the tokens."""
        return self.folder / TOKENIZER_NAME

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens."""
        return Tokenizer.load(self.tokenizer_path)

    def bytes_per_token(self, part: Part) -> float:
        """UTF-8 bytes of text that a token of this part stands for on average: for bits per byte."""
        info = self.manifest.train if part == "train" else self.manifest.validation
        return info.bytes / info.tokens

    def document_at(self, token: int, part: Part = "train") -> tuple[str, int]:
        """Name of the document that this token of the part came from, and the token's offset in that document."""
        return DocumentIndex(self.folder, part).at(token)


def prepare(config: DataConfig, *, progress: bool = True, should_stop: ShouldStop = never) -> Prepared:
    """The prepared corpus, from the cache where content and settings are the same; else made, complete or not at all.

    Raises DataError (one line, for the user) and PreparationStopped once `should_stop` returns True."""
    given = _given_tokenizer(config)
    corpus = open_corpus(config)
    cache = cache_folder(config)
    state = corpus.state()
    fingerprint = cached_fingerprint(corpus, state, cache, should_stop)
    folder = entry_folder(config, fingerprint, given.id if given else None, cache)
    found = open_prepared(folder)
    if isinstance(found, Prepared):
        return found
    if found is not None:
        _say(f"the prepared corpus {folder} is damaged ({found}): preparing it anew")
    with writing_to(cache), atomic_folder(folder) as building:
        _build(config, corpus, fingerprint, given, building, progress, should_stop)
        if corpus.state() != state:
            raise DataError(
                "the corpus changed while it was being prepared; run again when nobody writes to it"
            )
    made = open_prepared(folder)
    assert isinstance(made, Prepared), made
    return made


def open_prepared(folder: Path) -> Prepared | str | None:
    """The prepared corpus in `folder`, what is wrong with it, or None where there is nothing."""
    if not folder.exists():
        return None
    manifest = read_manifest(folder)
    if manifest is None:
        return f"{MANIFEST_NAME} is missing or unreadable"
    if (wrong := damage(folder, manifest)) is not None:
        return wrong
    dtype = np.dtype(manifest.dtype).newbyteorder("<")
    return Prepared(
        folder,
        manifest,
        Tokens(folder, "train", manifest.train, dtype),
        Tokens(folder, "validation", manifest.validation, dtype),
    )


def _given_tokenizer(config: DataConfig) -> Tokenizer | None:
    if config.tokenizer.kind == "bytes":
        return bytes_tokenizer()
    return Tokenizer.load(Path(config.tokenizer.path)) if config.tokenizer.path is not None else None


def _build(
    config: DataConfig,
    corpus: Corpus,
    fingerprint: str,
    given: Tokenizer | None,
    folder: Path,
    progress: bool,
    should_stop: ShouldStop,
) -> None:
    """Fills `folder`; each pass over the corpus streams it anew, so that memory stays bounded."""
    began = time.perf_counter()
    skipped = Skipped()
    split = plan_split(corpus.documents(Skipped()), config.validation_fraction, config.seed, should_stop)
    tokenizer = given or train_bpe(sample_texts(corpus, should_stop), config.tokenizer.vocab_size)
    tokenizer.save(folder / TOKENIZER_NAME)
    workers = config.num_workers or len(_usable_cpus())
    with Progress(corpus.size_bytes(), shown=progress) as bar:
        parts = _write_shards(folder, corpus, skipped, split, tokenizer, workers, bar.advance, should_stop)
    _check_parts(parts, skipped, config)
    manifest = Manifest(
        format=FORMAT,
        source=(config.source,) if isinstance(config.source, str) else tuple(config.source),
        fingerprint=fingerprint,
        tokenizer_id=tokenizer.id,
        vocab_size=tokenizer.vocab_size,
        end_of_text_id=tokenizer.end_of_text_id,
        dtype=token_dtype(tokenizer.vocab_size).name,
        train=parts["train"],
        validation=parts["validation"],
        skipped=dict(skipped.counts),
        skipped_examples={reason: tuple(names) for reason, names in skipped.examples.items()},
        seconds=time.perf_counter() - began,
        versions={
            "minigpt": minigpt.__version__,
            "tokenizers": tokenizers.__version__,
            "python": platform.python_version(),
        },
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    _report(manifest, skipped)


def _write_shards(
    folder: Path,
    corpus: Corpus,
    skipped: Skipped,
    split: Split,
    tokenizer: Tokenizer,
    workers: int,
    advance: Callable[[int], None],
    should_stop: ShouldStop,
) -> dict[Part, PartInfo]:
    dtype = token_dtype(tokenizer.vocab_size)
    parts = split.parts(corpus.documents(skipped))
    with ShardWriter(folder, "train", dtype) as train, ShardWriter(folder, "validation", dtype) as validation:
        writers: dict[Part, ShardWriter] = {"train": train, "validation": validation}
        inside: set[Part] = set()
        for piece in encode_documents(parts, tokenizer, dtype, workers, should_stop):
            writer = writers[piece.part]
            if piece.part not in inside:
                writer.start_document(piece.name)
                inside.add(piece.part)
            writer.append(piece.tokens, piece.text_bytes)
            if piece.ends_document:
                inside.remove(piece.part)
            advance(piece.text_bytes)
        return {"train": train.finish(), "validation": validation.finish()}


def _check_parts(parts: dict[Part, PartInfo], skipped: Skipped, config: DataConfig) -> None:
    total = sum(part.tokens for part in parts.values())
    if total == 0:
        raise DataError(no_text(config, skipped))
    for name, part in parts.items():
        if part.tokens < 2:
            raise DataError(
                f"the corpus is too small: {total:,} tokens leave {part.tokens} for {name} "
                f"with data.validation_fraction = {config.validation_fraction}; give more text or another fraction"
            )


def no_text(config: DataConfig, skipped: Skipped) -> str:
    """The message for a corpus without a single usable document."""
    why = f"skipped {skipped}" if skipped.counts else "it has no documents"
    return f"data.source = {config.source}: no usable text; {why}"


def _report(manifest: Manifest, skipped: Skipped) -> None:
    documents = manifest.train.documents + manifest.validation.documents
    size = manifest.train.bytes + manifest.validation.bytes
    _say(
        f"prepared {documents:,} documents, {size / 1e6:,.1f} MB: {manifest.train.tokens:,} tokens for training, "
        f"{manifest.validation.tokens:,} for validation, in {manifest.seconds:.1f} s"
    )
    if skipped.counts:
        _say(f"skipped {skipped}")


def _usable_cpus() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
