"""A prepared corpus of any size that takes no disk: shards of zeros that are nothing but holes."""

import hashlib
import os
import zlib
from pathlib import Path

import numpy as np

from minigpt.data.blocks import BLOCK_BYTES, BlockWriter, StoredFile, checksums_name
from minigpt.data.cache import cached_fingerprint, entry_folder
from minigpt.data.config import DataConfig
from minigpt.data.corpus import Corpus, open_corpus
from minigpt.data.manifest import FORMAT, TOKENIZER_NAME, Manifest, PartInfo, versions, write_manifest
from minigpt.data.progress import Tick, Watch, never
from minigpt.data.shards import SHARD_TOKENS
from minigpt.data.tokenizer import bytes_tokenizer

_TOKEN_BYTES = 2
_SOURCE_FILE_BYTES = 1 << 30


def pretend_prepared(folder: Path, tokens: int) -> DataConfig:
    """The configuration of a corpus of so many tokens under `folder`, prepared as far as anybody can see.

    Text, shards and checksums are where `minigpt prepare` puts them, and every checksum is right.
    """
    text = folder / "text"
    text.mkdir(parents=True)
    for number in range(-(-tokens // _SOURCE_FILE_BYTES)):
        _write_hole(text / f"{number:05d}.txt", min(_SOURCE_FILE_BYTES, tokens - number * _SOURCE_FILE_BYTES))
    settings = {"source": str(text), "cache_dir": str(folder / "cache"), "tokenizer": {"kind": "bytes"}}
    config = DataConfig.model_validate(settings)
    cache, real = config.cache_folder(), open_corpus(config)
    corpus = _Pretended(real.sources, real.max_documents)
    fingerprint = cached_fingerprint(corpus, real.state(), cache, Watch(never, shown=False))
    tokenizer = bytes_tokenizer()
    entry = entry_folder(config, fingerprint, tokenizer.id, cache)
    entry.mkdir(parents=True)
    tokenizer.save(entry / TOKENIZER_NAME)
    manifest = Manifest(
        format=FORMAT,
        key=entry.name,
        source=(str(text),),
        fingerprint=fingerprint,
        tokenizer_id=tokenizer.id,
        vocab_size=tokenizer.vocab_size,
        end_of_text_id=tokenizer.end_of_text_id,
        dtype="uint16",
        split="tails",
        train=_part(entry, "train", tokens),
        validation=_part(entry, "validation", SHARD_TOKENS),
        skipped={},
        skipped_examples={},
        seconds=0.0,
        versions=versions(),
    )
    write_manifest(entry, manifest)
    return config


class _Pretended(Corpus):
    """Reads nothing: a hundred gigabytes of zeros are hashed in a minute, and that is not what is measured."""

    def fingerprint(self, tick: Tick) -> str:
        return hashlib.sha256(b"simulated").hexdigest()


def _part(folder: Path, part: str, tokens: int) -> PartInfo:
    shards, known = [], dict[int, StoredFile]()
    for number, start in enumerate(range(0, tokens, SHARD_TOKENS)):
        size = _TOKEN_BYTES * min(SHARD_TOKENS, tokens - start)
        file = f"{part}_{number:05d}.bin"
        _write_hole(folder / file, size)
        if size in known:
            first = known[size]
            os.link(folder / checksums_name(first.file), folder / checksums_name(file))
            shards.append(first.model_copy(update={"file": file}))
        else:
            known[size] = _with_checksums(folder / file, size)
            shards.append(known[size])
    index, names = BlockWriter(folder / f"{part}.documents"), BlockWriter(folder / f"{part}.names")
    index.write(bytes(16))
    names.write(b"zeros")
    return PartInfo(
        tokens=tokens,
        documents=1,
        bytes=tokens,
        shards=tuple(shards),
        index=index.finish(),
        names=names.finish(),
    )


def _with_checksums(path: Path, size: int) -> StoredFile:
    checksums = np.full(-(-size // BLOCK_BYTES), zlib.crc32(bytes(BLOCK_BYTES)), "<u4")
    if size % BLOCK_BYTES:
        checksums[-1] = zlib.crc32(bytes(size % BLOCK_BYTES))
    data = checksums.tobytes()
    path.with_name(checksums_name(path.name)).write_bytes(data)
    # The digest of the whole is only ever listed: each block's checksum vouches for what is read.
    return StoredFile(
        file=path.name, bytes=size, sha256="", checksums_sha256=hashlib.sha256(data).hexdigest()
    )


def _write_hole(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)
