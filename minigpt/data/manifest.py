"""What a prepared corpus says about itself: the manifest.json beside its shards."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from minigpt.schema import Config

FORMAT = 1
MANIFEST_NAME = "manifest.json"
TOKENIZER_NAME = "tokenizer.json"


class Shard(Config):
    """One file of token ids, little-endian, nothing else in it."""

    file: str
    tokens: int
    sha256: str


class PartInfo(Config):
    """One part of the corpus: train or validation."""

    tokens: int
    """End-of-text tokens included."""
    documents: int
    bytes: int
    """UTF-8 bytes of its text: for bits per byte."""
    shards: tuple[Shard, ...]


class Manifest(Config):
    """Counts, digests and provenance of a prepared corpus."""

    format: int
    source: tuple[str, ...]
    fingerprint: str
    """sha256 over the names and contents of the sources."""
    tokenizer_id: str
    """sha256 of tokenizer.json."""
    vocab_size: int
    end_of_text_id: int
    dtype: str
    """uint16 or uint32."""
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


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest, None where there is none of this format."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
    except (OSError, ValidationError):
        return None


def damage(folder: Path, manifest: Manifest) -> str | None:
    """What is missing or of the wrong size in a prepared folder; None where all is there. Reads no shard."""
    if manifest.format != FORMAT:
        return f"format {manifest.format}, this version writes {FORMAT}"
    bytes_per_token = 2 if manifest.dtype == "uint16" else 4
    expected: dict[str, int | None] = {}
    for name, part in (("train", manifest.train), ("validation", manifest.validation)):
        expected |= {shard.file: shard.tokens * bytes_per_token for shard in part.shards}
        expected |= {f"{name}.documents": part.documents * 16, f"{name}.names": None}
    if _sha256(folder / TOKENIZER_NAME) != manifest.tokenizer_id:
        return f"{TOKENIZER_NAME} is missing or another one"
    for file, size in expected.items():
        try:
            found = (folder / file).stat().st_size
        except OSError:
            return f"{file} is missing"
        if size is not None and found != size:
            return f"{file} has {found:,} bytes instead of {size:,}"
    return None


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
