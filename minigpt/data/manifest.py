"""What a prepared corpus says about itself: the manifest.json beside its shards."""

import hashlib
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import tokenizers
from pydantic import Field, ValidationError

import minigpt
from minigpt.data.blocks import BlockReader, StoredFile, checksums_name, read_whole
from minigpt.errors import DataError
from minigpt.schema import Config

FORMAT = 2
MANIFEST_NAME = "manifest.json"
MANIFEST_DIGEST_NAME = "manifest.sha256"
TOKENIZER_NAME = "tokenizer.json"
_ROW_BYTES = 16
# As much as can be verified in the blink of an eye whenever a corpus is opened; larger ones as they are read.
_VERIFIED_AT_OPENING_BYTES = 128 << 20


class PartInfo(Config):
    """One part of the corpus: train or validation."""

    tokens: Annotated[int, Field(ge=0)]
    """End-of-text tokens included."""
    documents: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    """UTF-8 bytes of its text: for bits per byte."""
    shards: tuple[StoredFile, ...]
    """Token ids, little-endian, nothing else in them; one long row when laid end to end."""
    index: StoredFile
    """Of each document: where its tokens and its name begin, two little-endian 64-bit integers."""
    names: StoredFile
    """The documents' names, UTF-8, end to end."""

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All of them."""
        return (*self.shards, self.index, self.names)


class Manifest(Config):
    """Counts, digests and provenance of a prepared corpus."""

    format: int
    key: str
    """Of the cache entry: stands for the content and the settings it was made from."""
    source: tuple[str, ...]
    fingerprint: str
    """sha256 over the names and contents of the sources."""
    tokenizer_id: str
    """sha256 of tokenizer.json."""
    vocab_size: int
    end_of_text_id: int
    dtype: Literal["uint16", "uint32"]
    split: Literal["documents", "tails"]
    """Whole documents are for validation, or (in a corpus of few) the end of each."""
    train: PartInfo
    validation: PartInfo
    skipped: Mapping[str, int]
    """Unusable files and records by reason."""
    skipped_examples: Mapping[str, tuple[str, ...]]
    seconds: float
    """What the preparation took."""
    versions: Mapping[str, str]

    @property
    def bytes_per_token(self) -> int:
        """On disk."""
        return 2 if self.dtype == "uint16" else 4

    @property
    def parts(self) -> tuple[PartInfo, PartInfo]:
        """Both."""
        return self.train, self.validation

    @property
    def tokens_sha256(self) -> str:
        """Digest of all tokens: equal where training reads the very same."""
        shards = [shard.sha256 for part in self.parts for shard in (*part.shards, part.names)]
        return hashlib.sha256("\n".join(shards).encode()).hexdigest()


def versions() -> dict[str, str]:
    """What prepares a corpus here and now."""
    return {
        "minigpt": minigpt.__version__,
        "tokenizers": tokenizers.__version__,
        "python": platform.python_version(),
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """The last file of a prepared folder, and its digest beside it (`sha256sum -c` checks it)."""
    data = manifest.model_dump_json(indent=2).encode("utf-8")
    (folder / MANIFEST_NAME).write_bytes(data)
    (folder / MANIFEST_DIGEST_NAME).write_bytes(_digest_line(data))


def read_manifest(folder: Path) -> Manifest:
    """The folder's manifest.

    Raises:
        DataError: it is not there, not as it was written, or not of this format.
    """
    try:
        data = read_whole(folder / MANIFEST_NAME)
        manifest = Manifest.model_validate_json(data)
        if read_whole(folder / MANIFEST_DIGEST_NAME) != _digest_line(data):
            raise DataError(f"{MANIFEST_NAME} and {MANIFEST_DIGEST_NAME} are not as they were written")
    except (OSError, ValidationError) as error:
        raise DataError(f"{MANIFEST_NAME} is missing, unreadable or of another version") from error
    if manifest.format != FORMAT:
        raise DataError(f"format {manifest.format}, this version writes {FORMAT}")
    return manifest


def damage(folder: Path, manifest: Manifest) -> str | None:
    """What is wrong with a prepared folder; None where all is there. Sizes tell for large ones, contents for small.

    Raises:
        UnreadableError: the disk does not give its files at present.
    """
    wrong = misfit(folder, manifest)
    stored = sum(file.bytes + file.checksums_bytes for part in manifest.parts for file in part.files)
    if wrong is not None or stored > _VERIFIED_AT_OPENING_BYTES:
        return wrong
    return next(iter(damaged_files(folder, manifest)), None)


def misfit(folder: Path, manifest: Manifest) -> str | None:
    """What the manifest says and the folder does not hold, by names and sizes; None: they fit."""
    if manifest.key != folder.name:
        return f"{MANIFEST_NAME} is of another corpus or other settings ({manifest.key})"
    if (wrong := _contradiction(manifest)) is not None:
        return f"{MANIFEST_NAME}: {wrong}"
    if _sha256(folder / TOKENIZER_NAME) != manifest.tokenizer_id:
        return f"{TOKENIZER_NAME} is missing or another one"
    expected: dict[str, int] = {}
    for file in (file for part in manifest.parts for file in part.files):
        expected |= {file.file: file.bytes, checksums_name(file.file): file.checksums_bytes}
    for name, size in expected.items():
        path = folder / name
        try:
            found = path.stat().st_size if path.is_file() else None
        except OSError:
            found = None
        if found is None:
            return f"{name} is missing or no regular file"
        if found != size:
            return f"{name} has {found:,} bytes instead of {size:,}"
    return None


def damaged_files(folder: Path, manifest: Manifest) -> Iterator[str]:
    """What is wrong with each file that is not as it was written: reads everything.

    Raises:
        UnreadableError: the disk does not give it.
    """
    reader = BlockReader(folder)
    for part in manifest.parts:
        for file in part.files:
            yield from reader.damage_of(file)


def _contradiction(manifest: Manifest) -> str | None:
    """What its numbers say against each other; all checksums may well be right in a forged one."""
    for name, part in (("train", manifest.train), ("validation", manifest.validation)):
        if sum(shard.bytes for shard in part.shards) != part.tokens * manifest.bytes_per_token:
            return f"its {name} shards do not hold {part.tokens:,} tokens"
        if any(shard.bytes % manifest.bytes_per_token for shard in part.shards):
            return f"a {name} shard ends within a token"
        if part.index.bytes != part.documents * _ROW_BYTES:
            return f"{part.index.file} does not hold {part.documents:,} documents"
        if part.tokens < 1 or part.bytes < 0:
            return f"it has no tokens for {name}"
    if not 0 <= manifest.end_of_text_id < manifest.vocab_size <= 1 << (8 * manifest.bytes_per_token):
        return f"a vocabulary of {manifest.vocab_size:,} does not fit {manifest.dtype}"
    return None


def _digest_line(data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  {MANIFEST_NAME}\n".encode()


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(read_whole(path)).hexdigest()
    except OSError:
        return None
