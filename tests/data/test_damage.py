"""Prepared data that are not as they were written: noticed at the read that would use them, in one line."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from minigpt.data.blocks import BLOCK_BYTES, BlockReader, BlockWriter, StoredFile, checksums_name
from minigpt.data.loader import BatchLoader
from minigpt.data.manifest import Manifest, damaged_files, read_manifest, write_manifest
from minigpt.data.prepare import Prepared, open_prepared, prepare
from minigpt.data.shards import DocumentIndex
from minigpt.data.split import Part
from minigpt.data.windows import Windows
from minigpt.errors import DataError
from tests.data.conftest import data_config

Change = Callable[[Path], object]


def flip_bit(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_in_its_place(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES: dict[str, Change] = {
    "first bit flipped": lambda path: flip_bit(path, 0),
    "last bit flipped": lambda path: flip_bit(path, 8 * path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "last byte cut off": lambda path: os.truncate(path, path.stat().st_size - 1),
    "gone": os.unlink,
    "a folder in its place": folder_in_its_place,
    "a pipe in its place": pipe_in_its_place,
}
FILES = [
    f"{part}{end}"
    for part in ("train", "validation")
    for end in ("_00000.bin", "_00000.crc", ".documents", ".documents.crc", ".names", ".names.crc")
]


@pytest.fixture
def prepared(corpus: Path, cache: Path) -> Prepared:
    return prepare(data_config(corpus, cache))


def written(folder: Path, size: int, pieces: int = 1) -> StoredFile:
    writer = BlockWriter(folder / "train_0.bin")
    data = bytes(number * 7 % 251 for number in range(size))
    for start in range(0, size, max(1, size // pieces)):
        writer.write(data[start : start + max(1, size // pieces)])
    return writer.finish()


@pytest.mark.parametrize(
    "size", [1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, 3 * BLOCK_BYTES + 5]
)
def test_a_read_gives_what_was_written_whatever_the_borders(tmp_path: Path, size: int) -> None:
    file = written(tmp_path, size, pieces=7)
    wanted = (tmp_path / file.file).read_bytes()
    reader = BlockReader(tmp_path)
    borders = [block * BLOCK_BYTES + near for block in range(4) for near in (-1, 0, 1)]
    places = [place for place in borders if 0 <= place < size] + [size]
    for start in places:
        for stop in places:
            if start < stop:
                assert reader.read(file, start, stop) == wanted[start:stop]


def test_every_flipped_bit_and_every_truncation_is_noticed(tmp_path: Path) -> None:
    file = written(tmp_path, BLOCK_BYTES + 20)
    path = tmp_path / file.file
    good = path.read_bytes()
    for bit in (*range(0, 8 * len(good), 1009), *range(8 * BLOCK_BYTES - 9, 8 * len(good))):
        flip_bit(path, bit)
        with pytest.raises(DataError, match=r"are not as they were written; delete its folder") as caught:
            BlockReader(tmp_path).read(file, 0, file.bytes)
        assert "\n" not in str(caught.value)
        path.write_bytes(good)
    for size in (*range(0, BLOCK_BYTES, 501), *range(BLOCK_BYTES - 1, len(good))):
        os.truncate(path, size)
        with pytest.raises(DataError, match=f"train_0.bin: it ends at byte {size:,} instead of"):
            BlockReader(tmp_path).read(file, 0, file.bytes)
        path.write_bytes(good)
    assert BlockReader(tmp_path).read(file, 0, file.bytes) == good


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("file", [*FILES, "manifest.json", "manifest.sha256", "tokenizer.json"])
def test_a_damaged_entry_is_said_and_prepared_anew(
    prepared: Prepared, corpus: Path, cache: Path, capsys: pytest.CaptureFixture[str], file: str, change: str
) -> None:
    good = (prepared.folder / file).read_bytes()
    CHANGES[change](prepared.folder / file)
    assert isinstance(open_prepared(prepared.folder), str)
    capsys.readouterr()
    prepare(data_config(corpus, cache))
    said = capsys.readouterr().err.splitlines()
    assert "damaged (" in said[0]
    assert "preparing it anew" in said[0]
    if file.startswith("manifest"):
        return  # it has the time that the preparation took in it
    assert (prepared.folder / file).read_bytes() == good


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("file", FILES)
def test_a_file_that_changes_under_a_reader_is_noticed_at_the_next_read(
    prepared: Prepared, file: str, change: str
) -> None:
    part: Part = "train" if file.startswith("train") else "validation"
    tokens = prepared.train if part == "train" else prepared.validation
    CHANGES[change](prepared.folder / file)

    def read() -> object:
        return tokens[:] if "0000" in file else DocumentIndex(prepared.folder, part).at(len(tokens) - 1)

    with pytest.raises(DataError, match=rf"^the prepared corpus .*{file}: .*{prepared.folder}$") as caught:
        read()
    assert "\n" not in str(caught.value)


def test_a_shard_changed_in_place_is_noticed_by_a_loader_that_has_read_it_before(prepared: Prepared) -> None:
    windows = Windows(prepared.train, 16)
    shard = prepared.folder / "train_00000.bin"
    with BatchLoader(windows, seed=0, micro_batch_size=4, grad_accum_steps=1) as loader:
        for _ in range(2 * len(windows) // 4):
            loader.next_step()
        with shard.open("r+b") as file:
            file.seek(5000)
            file.write(b"\xff\xff")

        def epoch() -> None:
            for _ in range(len(windows)):
                loader.next_step()

        with pytest.raises(
            DataError, match=r"train_00000.bin: bytes 0 to 8,192 are not as they were written"
        ):
            epoch()


def test_another_corpus_is_noticed_when_its_shard_lies_in_the_place(
    prepared: Prepared, corpus: Path, cache: Path
) -> None:
    other = prepare(data_config(corpus, cache, seed=5))
    for name in ("train_00000.bin", "train_00000.crc"):
        # Both: they agree with each other, and not with the manifest.
        content = (other.folder / name).read_bytes()
        size = (prepared.folder / name).stat().st_size
        (prepared.folder / name).write_bytes(content[:size].ljust(size, b"\0"))
    with pytest.raises(DataError, match=r"train_00000.crc: it is not as it was written, or another corpus's"):
        prepared.train[:10]
    shutil.rmtree(prepared.folder)
    shutil.copytree(other.folder, prepared.folder)
    assert "of another corpus or other settings" in str(open_prepared(prepared.folder))


def forged(prepared: Prepared, **changes: object) -> Manifest:
    """A manifest with every checksum right."""
    manifest = prepared.manifest.model_copy(update=changes)
    write_manifest(prepared.folder, manifest)
    return manifest


def test_an_id_beyond_the_vocabulary_is_refused_though_all_checksums_are_right(prepared: Prepared) -> None:
    ids = prepared.train[:].copy()
    ids[100] = 257
    writer = BlockWriter(prepared.folder / "train_00000.bin")
    writer.write(ids.tobytes())
    shards = (writer.finish(),)
    forged(prepared, train=prepared.manifest.train.model_copy(update={"shards": shards}))
    found = open_prepared(prepared.folder)
    assert isinstance(found, Prepared)
    assert found.train[:100].tolist() == ids[:100].tolist()
    with pytest.raises(DataError, match="token 100 has the id 257, the vocabulary ends at 256; delete its"):
        found.train[90:110]
    assert list(damaged_files(found.folder, found.manifest)) == []


def test_a_vocabulary_that_is_not_the_tokenizers_is_refused(prepared: Prepared) -> None:
    forged(prepared, vocab_size=300)
    found = open_prepared(prepared.folder)
    assert isinstance(found, Prepared)
    with pytest.raises(DataError, match=r"says a vocabulary of 300, tokenizer.json has 257"):
        found.tokenizer()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 1}, "format 1, this version writes"),
        ({"key": "0" * 32}, "of another corpus or other settings"),
        ({"dtype": "uint32"}, "its train shards do not hold"),
        ({"end_of_text_id": 9999}, "does not fit"),
        ({"vocab_size": 1 << 40}, "does not fit"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    prepared: Prepared, changes: dict[str, object], message: str
) -> None:
    forged(prepared, **changes)
    assert message in str(open_prepared(prepared.folder))


@pytest.mark.parametrize("name", ["../other.bin", "/etc/passwd", "a/b", "", ".."])
def test_a_manifest_never_leads_out_of_its_folder(prepared: Prepared, name: str) -> None:
    shard = prepared.manifest.train.shards[0].model_copy(update={"file": name})
    forged(prepared, train=prepared.manifest.train.model_copy(update={"shards": (shard,)}))
    with pytest.raises(DataError, match=r"manifest.json is missing, unreadable or of another version"):
        read_manifest(prepared.folder)


def test_every_bit_of_a_manifest_counts(prepared: Prepared) -> None:
    for file in ("manifest.json", "manifest.sha256"):
        path = prepared.folder / file
        good = path.read_bytes()
        for bit in range(0, 8 * len(good), 61):
            flip_bit(path, bit)
            assert isinstance(open_prepared(prepared.folder), str), bit
            path.write_bytes(good)
    assert isinstance(open_prepared(prepared.folder), Prepared)


def test_all_damage_is_listed_when_everything_is_read(prepared: Prepared) -> None:
    for name in ("train_00000.bin", "validation.names"):
        flip_bit(prepared.folder / name, 9)
    found = list(damaged_files(prepared.folder, prepared.manifest))
    hit = [name for name in FILES for line in found if f"/{name}: " in line]
    assert hit == ["train_00000.bin", "validation.names"]


def test_checksums_lie_beside_their_file() -> None:
    names = [checksums_name(name) for name in ("train_00000.bin", "train.documents", "train.names")]
    assert names == ["train_00000.crc", "train.documents.crc", "train.names.crc"]
