"""A prepared corpus: its shards are those that its manifest tells of."""

import hashlib
from pathlib import Path

from minigpt.checkpoint.damage import DamagedError, opened
from minigpt.data.manifest import MANIFEST_NAME, Manifest, Shard, damage, read_manifest
from minigpt.training.verify.report import Checked

_BLOCK_BYTES = 1 << 20
WAY_OUT = "delete the folder, and the next run prepares it anew"


def check_corpus(folder: Path) -> list[Checked]:
    """What is wrong with each file of a prepared corpus; reads every shard through, in blocks."""
    try:
        with opened(folder / MANIFEST_NAME):
            manifest = read_manifest(folder)
    except DamagedError as error:
        return [Checked(MANIFEST_NAME, "damaged", f"{error.what}; {WAY_OUT}")]
    if manifest is None:
        return [Checked(MANIFEST_NAME, "damaged", f"it cannot be read; {WAY_OUT}")]
    shards = [
        _check_shard(folder, shard) for part in (manifest.train, manifest.validation) for shard in part.shards
    ]
    return [_check_rest(folder, manifest), *shards]


def _check_rest(folder: Path, manifest: Manifest) -> Checked:
    """The manifest with all that is small: which files there are, their sizes, the tokenizer."""
    wrong = damage(folder, manifest)
    if wrong is not None:
        return Checked(MANIFEST_NAME, "damaged", f"of its files, {wrong}; {WAY_OUT}")
    tokens = manifest.train.tokens + manifest.validation.tokens
    return Checked(MANIFEST_NAME, "good", f"{tokens:,} tokens; all files are there, the tokenizer is its own")


def _check_shard(folder: Path, shard: Shard) -> Checked:
    if Path(shard.file).name != shard.file:
        return Checked(shard.file, "damaged", f"it does not lie in the corpus's folder; {WAY_OUT}")
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES))
    try:
        with opened(folder / shard.file) as file:
            while count := file.readinto(block):  # type: ignore[attr-defined]
                digest.update(block[:count])
    except DamagedError as error:
        return Checked(shard.file, "damaged", f"{error.what}; {WAY_OUT}")
    except OSError as error:
        return Checked(shard.file, "damaged", f"it cannot be read: {error.strerror}; {WAY_OUT}")
    if digest.hexdigest() != shard.sha256:
        return Checked(shard.file, "damaged", f"its content does not match its checksum; {WAY_OUT}")
    return Checked(shard.file, "good", f"{shard.tokens:,} tokens, sha256 is right")
