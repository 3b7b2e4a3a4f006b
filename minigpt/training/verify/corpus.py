"""A prepared corpus: its files are those that its manifest tells of, to the last bit."""

from pathlib import Path

from minigpt.data.blocks import BlockReader, StoredFile, UnreadableError
from minigpt.data.manifest import MANIFEST_NAME, Manifest, misfit, read_manifest
from minigpt.errors import DataError
from minigpt.training.verify.report import Checked

WAY_OUT = "delete the folder, and the next run prepares it anew"


def check_corpus(folder: Path) -> list[Checked]:
    """What is wrong with each file of a prepared corpus; reads all of them through, in blocks."""
    try:
        manifest = read_manifest(folder)
    except DataError as error:
        return [Checked(MANIFEST_NAME, "damaged", f"{error}; {WAY_OUT}")]
    reader = BlockReader(folder)
    files = [file for part in manifest.parts for file in part.files]
    return [_check_manifest(folder, manifest), *(_check_file(reader, file) for file in files)]


def _check_manifest(folder: Path, manifest: Manifest) -> Checked:
    """The manifest with all that is small: which files there are, their sizes, the tokenizer."""
    wrong = misfit(folder, manifest)
    if wrong is not None:
        return Checked(MANIFEST_NAME, "damaged", f"of its files, {wrong}; {WAY_OUT}")
    tokens = manifest.train.tokens + manifest.validation.tokens
    return Checked(MANIFEST_NAME, "good", f"{tokens:,} tokens; all files are there, the tokenizer is its own")


def _check_file(reader: BlockReader, file: StoredFile) -> Checked:
    try:
        wrong = next(reader.damage_of(file), None)
    except UnreadableError as error:
        wrong = str(error)
    if wrong is not None:
        return Checked(file.file, "damaged", wrong)
    return Checked(file.file, "good", f"{file.bytes:,} bytes, each block's checksum is right")
