"""sources: everything that people point at, and everything that can be wrong with it."""

import gzip
import json
import os
from pathlib import Path

import pytest

from minigpt.data.corpus import open_corpus
from minigpt.data.document import PIECE_CHARACTERS, Document, Skipped
from minigpt.data.sources.python_code import environment_files, stdlib_files
from minigpt.errors import DataError
from tests.data.conftest import data_config


def read(source: str | list[str] | Path, cache: Path, **more: object) -> tuple[list[Document], Skipped]:
    skipped = Skipped()
    return list(open_corpus(data_config(source, cache, **more)).documents(skipped)), skipped


def test_folder_yields_each_file_once_in_order(tmp_path: Path, cache: Path) -> None:
    for name in ("b.txt", "a/2.md", "a/1", ".hidden", ".git/config"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "b.txt")
    (tmp_path / "in" / "a" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "in" / "pipe")
    documents, skipped = read([str(tmp_path / "in"), str(tmp_path / "in" / "*.txt")], cache)
    assert [document.name for document in documents] == ["a/1", "a/2.md", "again"]
    assert not skipped.counts


def test_text_drops_a_byte_order_mark_and_keeps_line_ends(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r")
    assert read(tmp_path / "a.txt", cache)[0] == [Document("one\r\ntwo\r", "a.txt")]


def test_text_counts_unusable_files_by_reason(tmp_path: Path, cache: Path) -> None:
    contents = {
        "good": b"x",
        "empty": b"",
        "mark": b"\xef\xbb\xbf",
        "latin": b"\xe9",
        "half": b"a\xc3",
        "zip": b"P\0K",
    }
    (tmp_path / "in").mkdir()
    for name, content in contents.items():
        (tmp_path / "in" / name).write_bytes(content)
    documents, skipped = read(tmp_path / "in", cache)
    assert [document.text for document in documents] == ["x"]
    assert skipped.counts == {"empty": 2, "not UTF-8 text": 2, "binary (NUL bytes)": 1}
    assert str(skipped) == "1 binary (NUL bytes) (zip); 2 empty (empty, mark); 2 not UTF-8 text (half, latin)"


@pytest.mark.parametrize("line", ["é" * 99 + "\n", "世" * (3 * PIECE_CHARACTERS)])
def test_text_comes_in_bounded_pieces_when_the_file_is_large(tmp_path: Path, cache: Path, line: str) -> None:
    text = line * (1 + 3 * PIECE_CHARACTERS // len(line))
    (tmp_path / "a.txt").write_text(text)
    documents, _ = read(tmp_path / "a.txt", cache)
    assert "".join(document.text for document in documents) == text
    assert max(len(document.text) for document in documents) <= 2 * PIECE_CHARACTERS
    assert [document.last for document in documents] == [False] * (len(documents) - 1) + [True]
    assert [document.offset for document in documents[1:]] == [
        sum(len(document.text) for document in documents[:number]) for number in range(1, len(documents))
    ]
    assert all(document.text.endswith("\n") for document in documents[:-1]) or "\n" not in line


def test_jsonl_counts_bad_lines(tmp_path: Path, cache: Path) -> None:
    lines = [
        '{"body": "one"}',
        "",
        "not json",
        "[1]",
        '{"other": 1}',
        '{"body": "\\ud800"}',
        '{"body": ""}',
        "{}\xff",
    ]
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write("\n".join(lines).encode("latin-1"))
    documents, skipped = read(tmp_path / "a.jsonl.gz", cache, text_field="body")
    assert documents == [Document("one", "a.jsonl.gz:1")]
    assert skipped.counts == {
        "not JSON": 2,
        "without text in the field 'body'": 2,
        "with broken Unicode": 1,
        "empty": 1,
    }


def test_a_broken_gzip_is_counted(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000)[:-9])
    assert read(tmp_path / "a.jsonl.gz", cache)[1].counts == {"unreadable": 1}


def test_parquet_yields_a_document_a_row(tmp_path: Path, cache: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": ["one", None, "two"]}), tmp_path / "a.parquet")
    documents, skipped = read(tmp_path / "a.parquet", cache)
    assert documents == [Document("one", "a.parquet:1"), Document("two", "a.parquet:3")]
    assert skipped.counts == {"without text in the field 'text'": 1}
    with pytest.raises(DataError, match=r"no column 'body'; its columns are text: set data.text_field"):
        read(tmp_path / "a.parquet", cache, text_field="body")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 but not really")
    assert read(tmp_path / "b.parquet", cache)[1].counts == {"not Parquet": 1}


@pytest.mark.filterwarnings("default")  # the library's own
def test_hugging_face_streams_a_local_folder(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text(
        "".join(json.dumps({"text": f"{number}"}) + "\n" for number in range(9))
    )
    source = f"hf:{tmp_path / 'in'}"
    documents, _ = read(source, cache, max_documents=5)
    assert [document.text for document in documents] == ["0", "1", "2", "3", "4"]
    with pytest.raises(DataError, match="no field 'body'; its fields are text"):
        read(source, cache, text_field="body")
    with pytest.raises(DataError, match=r"hf_split = nope\): cannot be opened"):
        read(source, cache, hf_split="nope")


def test_stdlib_has_no_tests_and_environment_has_more() -> None:
    stdlib = {file.name for file in stdlib_files()}
    assert {"os.py", "asyncio/tasks.py"} <= stdlib
    assert not [name for name in stdlib if {"test", "tests", "site-packages"} & set(name.split("/"))]
    environment = {file.name for file in environment_files()}
    assert stdlib < environment
    assert "site-packages/numpy/__init__.py" in environment


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nope", "no such file or folder"),
        ("*.nope", "no file matches this glob"),
        ("", "is empty"),
        ("hf:", "names no dataset"),
        ([], "empty list"),
        ("folder", "no files in"),
        ("pipe", "neither a regular file nor a folder"),
        ("link", "a symbolic link to nowhere"),
        ("~nobody-of-this-name/x", "home"),
    ],
)
def test_paths_that_lead_nowhere_are_one_clear_line(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, source: str | list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(DataError, match=message) as caught:
        read(source, cache)
    assert "\n" not in str(caught.value)


def test_names_that_are_no_utf_8_are_shown_replaced(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/a\xff")).write_text("x")
    assert [document.name for document in read(folder, cache)[0]] == ["a\ufffd"]
