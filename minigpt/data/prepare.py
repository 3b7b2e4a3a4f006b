"""A corpus made ready for training: tokenizer, token shards and manifest, in a cache keyed by content."""

import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigpt.atomic import atomic_folder, remove_folder
from minigpt.data.blocks import damaged
from minigpt.data.cache import cached_fingerprint, entry_folder, writing_to
from minigpt.data.config import DataConfig
from minigpt.data.corpus import Corpus, open_corpus
from minigpt.data.document import Skipped
from minigpt.data.encode import encode_documents, usable_cpus
from minigpt.data.manifest import (
    FORMAT,
    MANIFEST_NAME,
    TOKENIZER_NAME,
    Manifest,
    PartInfo,
    damage,
    read_manifest,
    versions,
    write_manifest,
)
from minigpt.data.progress import ShouldStop, Tick, Watch, never
from minigpt.data.sample import sample_texts
from minigpt.data.shards import DocumentIndex, ShardWriter, Tokens, token_dtype
from minigpt.data.split import PARTS, Part, Split, plan_split
from minigpt.data.tokenizer import Tokenizer, bytes_tokenizer, train_bpe
from minigpt.errors import DataError, user_path


@dataclass(frozen=True)
class Prepared:
    """A corpus ready for training; its tokens stay on disk and are verified whenever they are read."""

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
        tokenizer = Tokenizer.load(self.tokenizer_path)
        if tokenizer.vocab_size != self.manifest.vocab_size:
            raise damaged(
                self.folder / MANIFEST_NAME,
                f"it says a vocabulary of {self.manifest.vocab_size:,}, {TOKENIZER_NAME} has {tokenizer.vocab_size:,}",
            )
        return tokenizer

    def bytes_per_token(self, part: Part) -> float:
        """UTF-8 bytes of text that a token of this part stands for on average: for bits per byte."""
        info = self.manifest.train if part == "train" else self.manifest.validation
        return info.bytes / info.tokens

    def document_at(self, token: int, part: Part = "train") -> tuple[str, int]:
        """Name of the document that this token of the part came from, and the token's offset within it."""
        return DocumentIndex(self.folder, part).at(token)


def prepare(config: DataConfig, *, progress: bool = True, should_stop: ShouldStop = never) -> Prepared:
    """The prepared corpus, from the cache where content and settings are the same; else made, all or nothing.

    Raises DataError for the user's mistakes, PreparationStoppedError once `should_stop` returns True."""
    watch = Watch(should_stop, shown=progress)
    return watch.run(lambda: _prepared(config, watch))


def _prepared(config: DataConfig, watch: Watch) -> Prepared:
    given = _given_tokenizer(config)
    corpus = open_corpus(config)
    cache = config.cache_folder()
    state = corpus.state()
    fingerprint = cached_fingerprint(corpus, state, cache, watch)
    folder = entry_folder(config, fingerprint, given.id if given else None, cache)
    found = open_prepared(folder)
    if isinstance(found, Prepared):
        return found
    with writing_to(cache):
        if found is not None:
            _say(f"the prepared corpus {folder} is damaged ({found}): preparing it anew")
            remove_folder(folder)
        # Of two processes that prepare the same at once, the first to finish wins and both use its work.
        with atomic_folder(folder, keep_existing=True) as building:
            _build(building, folder.name, config, corpus, fingerprint, given, watch)
            if corpus.state() != state:
                raise DataError(
                    "the corpus changed while it was being prepared; run again when it is at rest"
                )
    made = open_prepared(folder)
    if not isinstance(made, Prepared):
        raise DataError(f"the prepared corpus {folder} was removed or damaged by another process; run again")
    return made


def open_prepared(folder: Path) -> Prepared | str | None:
    """The prepared corpus in `folder`, what is wrong with it, or None where there is nothing."""
    if not folder.exists():
        return None
    try:
        manifest = read_manifest(folder)
    except DataError as error:
        return str(error)
    if (wrong := damage(folder, manifest)) is not None:
        return wrong
    dtype = np.dtype(manifest.dtype).newbyteorder("<")
    return Prepared(
        folder,
        manifest,
        Tokens(folder, "train", manifest.train, dtype, manifest.vocab_size),
        Tokens(folder, "validation", manifest.validation, dtype, manifest.vocab_size),
    )


def _given_tokenizer(config: DataConfig) -> Tokenizer | None:
    if config.tokenizer.kind == "bytes":
        return bytes_tokenizer()
    if config.tokenizer.path is None:
        return None
    path = user_path(config.tokenizer.path, "data.tokenizer.path")
    try:
        return Tokenizer.load(path)
    except DataError as error:
        raise DataError(f"data.tokenizer.path: {error}; give another, or data.tokenizer.kind=bpe") from error


def _build(
    folder: Path,
    key: str,
    config: DataConfig,
    corpus: Corpus,
    fingerprint: str,
    given: Tokenizer | None,
    watch: Watch,
) -> None:
    """Fills `folder`; each pass over the corpus streams it anew, so that memory stays bounded."""
    began = time.perf_counter()
    size = corpus.size_bytes()
    skipped = Skipped()
    with watch.over("counting documents", size) as tick:
        split = plan_split(corpus.documents(skipped), config.validation_fraction, config.seed, tick)
    if split.is_empty:
        why = f"skipped {skipped}" if skipped.counts else "it has no documents"
        raise DataError(f"data.source = {_listed(config)}: no usable text; {why}")
    tokenizer = given or _trained(config, corpus, watch)
    tokenizer.save(folder / TOKENIZER_NAME)
    skipped = Skipped()
    workers = config.num_workers or usable_cpus()
    with watch.over("tokenizing", size) as tick:
        parts = _write_shards(folder, corpus, skipped, split, tokenizer, workers, tick)
    _check_parts(parts, config)
    manifest = Manifest(
        format=FORMAT,
        key=key,
        source=(config.source,) if isinstance(config.source, str) else tuple(config.source),
        fingerprint=fingerprint,
        tokenizer_id=tokenizer.id,
        vocab_size=tokenizer.vocab_size,
        end_of_text_id=tokenizer.end_of_text_id,
        dtype=token_dtype(tokenizer.vocab_size).name,
        split=split.kind,
        train=parts["train"],
        validation=parts["validation"],
        skipped=dict(skipped.counts),
        skipped_examples={reason: tuple(names) for reason, names in skipped.examples.items()},
        seconds=time.perf_counter() - began,
        versions=versions(),
    )
    write_manifest(folder, manifest)
    _report(manifest, skipped)


def _trained(config: DataConfig, corpus: Corpus, watch: Watch) -> Tokenizer:
    vocab_size = config.tokenizer.vocab_size
    with watch.over("reading for the tokenizer", corpus.size_bytes()) as tick:
        texts = sample_texts(corpus, tick)
    megabytes = sum(map(len, texts)) / 1e6
    _say(f"training a tokenizer of {vocab_size:,} tokens on {megabytes:,.1f} MB of the corpus ...")
    return train_bpe(texts, vocab_size)


def _write_shards(
    folder: Path,
    corpus: Corpus,
    skipped: Skipped,
    split: Split,
    tokenizer: Tokenizer,
    workers: int,
    tick: Tick,
) -> dict[Part, PartInfo]:
    dtype = token_dtype(tokenizer.vocab_size)
    batches = encode_documents(split.parts(corpus.documents(skipped)), tokenizer, dtype, workers)
    with (
        ShardWriter(folder, "train", dtype) as train,
        ShardWriter(folder, "validation", dtype) as validation,
        closing(batches),
    ):
        writers: dict[Part, ShardWriter] = {"train": train, "validation": validation}
        unfinished: dict[Part, bool] = dict.fromkeys(PARTS, False)
        for encoded in batches:
            writer = writers[encoded.part]
            names, offsets = [], []
            for name, offset, ends_document in encoded.pieces:
                if not unfinished[encoded.part]:
                    names.append(name)
                    offsets.append(offset)
                unfinished[encoded.part] = not ends_document
            writer.start_documents(names, offsets)
            writer.append(encoded.tokens, encoded.text_bytes)
            tick(encoded.text_bytes)
        return {"train": train.finish(), "validation": validation.finish()}


def _check_parts(parts: dict[Part, PartInfo], config: DataConfig) -> None:
    total = sum(part.tokens for part in parts.values())
    for name, part in parts.items():
        if part.tokens < 2:
            raise DataError(
                f"the corpus is too small: data.validation_fraction = {config.validation_fraction} leaves "
                f"{part.tokens} of its {total:,} tokens for {name}; give more (or more different) text, "
                "or another fraction"
            )


def _report(manifest: Manifest, skipped: Skipped) -> None:
    tails = manifest.split == "tails"
    documents = manifest.train.documents + (0 if tails else manifest.validation.documents)
    size = manifest.train.bytes + manifest.validation.bytes
    _say(
        f"prepared {documents:,} documents, {size / 1e6:,.1f} MB: "
        f"{manifest.train.tokens:,} tokens to train on, "
        f"{manifest.validation.tokens:,} to validate on{' (the end of each document)' if tails else ''}, "
        f"in {manifest.seconds:.1f} s"
    )
    if skipped.counts:
        _say(f"skipped {skipped}")


def _listed(config: DataConfig) -> str:
    return config.source if isinstance(config.source, str) else ", ".join(config.source)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
