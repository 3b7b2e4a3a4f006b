"""Everything odd that a corpus can hold: used as it is meant, or passed over and said, or refused in one line."""

import gzip
import json
import os
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from minigpt.data.corpus import open_corpus
from minigpt.data.document import Document, Skipped
from minigpt.data.prepare import prepare
from minigpt.data.sources import files
from minigpt.data.sources.paths import find_files
from minigpt.errors import DataError
from tests.data.conftest import data_config
from tests.data.test_sources import read

WORDS = "one two three\n" * 50


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def text_of(documents: list[Document]) -> str:
    return "".join(document.text for document in documents)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"text\0text", "binary (NUL bytes)"),
        (b"a" * 600_000 + b"\0", "binary (NUL bytes)"),
        (b"a" * 600_000 + b"\xff", "not UTF-8 text"),
        (b"\xed\xa0\x80", "not UTF-8 text"),  # a surrogate, as CESU-8 writes it
        (b"\xf4\x90\x80\x80", "not UTF-8 text"),  # beyond U+10FFFF
        (b"\xc0\xaf", "not UTF-8 text"),  # longer than need be
        ("text\n".encode("utf-16"), "UTF-16, not UTF-8 text"),
        (b"\xfe\xff\x00t", "UTF-16, not UTF-8 text"),
        ("text\n".encode("utf-32"), "UTF-16, not UTF-8 text"),
        ("text\n".encode("utf-16-le"), "binary (NUL bytes)"),
        ("é\n".encode("latin-1"), "not UTF-8 text"),
        (b"", "empty"),
    ],
)
def test_what_is_no_text_is_passed_over_and_said(
    folder: Path, cache: Path, content: bytes, reason: str
) -> None:
    (folder / "odd.txt").write_bytes(content)
    (folder / "good.txt").write_text(WORDS)
    documents, skipped = read(folder, cache)
    assert text_of(documents) == WORDS
    assert skipped.counts == {reason: 1}


@pytest.mark.parametrize(
    "text",
    [
        "a\r\nb\rc\nd",
        " \n\t \n",
        "\u2028\u0085\x0b",
        "\x01\x1b[31m",
        "\ufeff\ufeff",
        "e\u0301é👩‍👩‍👧\u202e",
        "x",
    ],
)
def test_text_comes_through_to_the_last_character(folder: Path, cache: Path, text: str) -> None:
    (folder / "a.txt").write_bytes(text.encode())
    (folder / "b.txt").write_text(WORDS)
    documents, skipped = read(folder, cache)
    assert text_of(documents[:1]) == text.removeprefix("\ufeff")
    assert not skipped.counts
    prepared = prepare(data_config(folder, cache))
    decoded = prepared.tokenizer().decode([*prepared.train[:].tolist(), *prepared.validation[:].tolist()])
    assert len(decoded.replace("<|endoftext|>", "")) == len(text_of(documents))


@pytest.mark.parametrize(
    ("line", "counted"),
    [
        (b'{"text": "\\ud83d"}', "with broken Unicode"),
        (b'{"text": ' + b"[" * 100_000, "not JSON"),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
        (b'{"a": ' * 100_000, "not JSON"),
        (b'{"text": "x", "n": ' + b"9" * 100_000 + b"}", "not JSON"),
        (b'{"text": ' + b"9" * 4000 + b"}", "without text in the field 'text'"),
        (b'{"text": 1e999999}', "without text in the field 'text'"),
        (b'{"text": NaN}', "without text in the field 'text'"),
        (b'{"text": null}', "without text in the field 'text'"),
        (b'{"text": {"text": "x"}}', "without text in the field 'text'"),
        (b'{"text": "x", "text": ""}', "empty"),  # the last one counts
        (b'{"TEXT": "x"}', "without text in the field 'text'"),
        (b'{"text": "\xff"}', "not JSON"),
        (b'{"text": "a\nb"}', "not JSON"),
        (b"\0\0\0\0", "not JSON"),
        (b'"text"', "without text in the field 'text'"),
    ],
)
def test_an_odd_json_line_is_passed_over_and_said(
    folder: Path, cache: Path, line: bytes, counted: str
) -> None:
    (folder / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "first"}\r\n' + line + b'\n{"text": "last"}')
    documents, skipped = read(folder, cache)
    assert text_of(documents) == "firstlast"
    assert set(skipped.counts) == {counted}


def test_the_last_of_two_equal_json_keys_counts(folder: Path, cache: Path) -> None:
    (folder / "a.jsonl").write_bytes(b'{"text": "x", "text": "y"}\n{"text": "\\ud83d\\ude00"}\n')
    assert text_of(read(folder, cache)[0]) == "y😀"


def bomb(chunk: bytes, times: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(chunk) for _ in range(times)) + packer.flush()


MEMORY = """
import resource, sys
from minigpt.data.corpus import open_corpus
from minigpt.data.document import Skipped
from minigpt.data.config import DataConfig
corpus, skipped = open_corpus(DataConfig(source=sys.argv[1])), Skipped()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
characters = sum(len(document.text) for document in corpus.documents(skipped))
print(characters, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, skipped)
"""


@pytest.mark.parametrize("name", ["bomb.txt.gz", "bomb.jsonl.gz"])
def test_a_compressed_bomb_streams_in_bounded_memory(folder: Path, name: str) -> None:
    if name == "bomb.txt.gz":
        content, megabytes = bomb(b"a" * (1 << 20), 64), 64
    else:
        content, megabytes = bomb(json.dumps({"text": "a" * 1000}).encode() + b"\n", 40_000), 38
    (folder / name).write_bytes(content)
    assert len(content) < 1 << 20
    command = [sys.executable, "-c", MEMORY, str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    characters, grown_mib = (int(word) for word in out.split()[:2])
    assert characters >= megabytes * 1_000_000
    assert grown_mib < 30


def test_a_gzip_with_garbage_at_its_end_gives_what_comes_before_and_says_so(
    folder: Path, cache: Path
) -> None:
    lines = b"".join(json.dumps({"text": f"{number} " * 50}).encode() + b"\n" for number in range(300))
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines) + b"garbage")
    (folder / "b.txt.gz").write_bytes(gzip.compress(b"text") + b"garbage")
    (folder / "c.txt.gz").write_bytes(gzip.compress(b"te") + gzip.compress(b"xt") + bytes(512))
    documents, skipped = read(folder, cache)
    assert skipped.counts == {"unreadable": 2}
    assert [document.text for document in documents[-1:]] == ["text"]
    assert str(skipped) == f"2 unreadable (a.jsonl.gz after {len(documents) - 1} documents, b.txt.gz)"


@pytest.mark.parametrize("cut", [0, 1, 5, 10, 15, -1])
def test_a_gzip_cut_anywhere_is_said(folder: Path, cache: Path, cut: int) -> None:
    (folder / "a.txt.gz").write_bytes(gzip.compress(WORDS.encode())[:cut])
    (folder / "b.txt").write_text("x")
    documents, skipped = read(folder, cache)
    assert text_of(documents) == "x"
    assert sum(skipped.counts.values()) == 1


@pytest.mark.parametrize("source", ["/dev/zero", "/dev/random", "pipe", "socket", "link to a pipe"])
def test_what_never_ends_is_refused_by_name_and_passed_over_in_a_folder(
    folder: Path, cache: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # a socket's path must be short
    os.mkfifo("pipe")
    Path("link to a pipe").symlink_to("pipe")
    Path("zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as open_socket:
        open_socket.bind("socket")
        with pytest.raises(DataError, match="neither a regular file nor a folder") as caught:
            open_corpus(data_config(source, cache))
        assert "\n" not in str(caught.value)
        Path("good.txt").write_text("x")
        assert [document.name for document in read(folder, cache)[0]] == ["good.txt"]
        assert [document.name for document in read("*", cache)[0]] == ["good.txt"]


def test_a_pipe_that_takes_a_files_place_after_it_was_listed_is_passed_over(
    folder: Path, cache: Path
) -> None:
    for name in ("a.txt", "b.jsonl", "c.txt"):
        (folder / name).write_text('{"text": "x"}')
    corpus, skipped = open_corpus(data_config(folder, cache)), Skipped()
    for name in ("a.txt", "b.jsonl"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    assert len(list(corpus.documents(skipped))) == 1
    assert skipped.counts == {"unreadable": 2}
    assert corpus.fingerprint(lambda _: None) == corpus.fingerprint(lambda _: None)


def test_links_that_lead_in_circles_or_nowhere_are_passed_over(folder: Path, cache: Path) -> None:
    (folder / "self").symlink_to("self")
    (folder / "there").symlink_to("back")
    (folder / "back").symlink_to("there")
    (folder / "up").symlink_to("..")
    (folder / "gone").symlink_to("nowhere")
    (folder / "good.txt").write_text("x")
    (folder / "hard.txt").hardlink_to(folder / "good.txt")
    assert [document.name for document in read(folder, cache)[0]] == ["good.txt", "hard.txt"]
    for name in ("self", "there", "gone"):
        with pytest.raises(DataError, match="a symbolic link to nowhere"):
            read(folder / name, cache)


def test_a_file_that_vanishes_is_passed_over_and_one_that_changes_stops_the_preparation(
    folder: Path, cache: Path
) -> None:
    for number in range(30):
        (folder / f"{number:02d}.txt").write_text(WORDS + str(number))
    corpus, skipped = open_corpus(data_config(folder, cache)), Skipped()
    (folder / "07.txt").unlink()
    assert len(list(corpus.documents(skipped))) == 29
    assert str(skipped) == "1 unreadable (07.txt)"
    asked = 0

    def grow() -> bool:
        nonlocal asked
        asked += 1
        with (folder / "00.txt").open("a") as file:
            file.write("more\n")
        return False

    with pytest.raises(DataError, match="the corpus changed while it was being prepared"):
        prepare(data_config(folder, cache), should_stop=grow)
    assert asked > 30
    assert not list((cache / "prepared").iterdir())


def test_a_file_that_breaks_off_half_way_stops_the_preparation(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before stands in the shards already: the next document would be joined to it."""
    (folder / "a.txt").write_text("x" * 2_000_000)

    def breaking(path: Path, name: str, field: str, skipped: Skipped) -> Iterator[Document]:
        yield Document("begun", name, 0, last=False)
        raise OSError(5, "Input/output error")

    corpus = files.FileCorpus(find_files([str(folder)], cache), lambda _: breaking, "text")
    with pytest.raises(DataError, match=r"a.txt could be read once and not again \(.*Input/output error\)"):
        list(corpus.documents(Skipped()))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_or_file_without_permission_is_one_line(folder: Path, cache: Path) -> None:
    (folder / "good.txt").write_text("x")
    (folder / "closed.txt").write_text("y")
    (folder / "closed.txt").chmod(0)
    documents, skipped = read(folder, cache)
    assert (text_of(documents), str(skipped)) == ("x", "1 unreadable (closed.txt)")
    (folder / "sub").mkdir(mode=0)
    try:
        with pytest.raises(DataError, match=r"no permission to read .*sub"):
            read(folder, cache)
    finally:
        (folder / "sub").chmod(0o755)


NAMES = [
    b"new\nline.txt",
    b"\xff\xfe.txt",
    "emoji 🎉.txt".encode(),
    b"x" * 251 + b".txt",
    b"[a]*?.txt",
    b"-rf.txt",
    b"tab\t\x1b[31m.txt",
    b"~.txt",
    b"$HOME.txt",
    b"a, b.txt",
    b"hf:x.txt",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_file_name_works_and_shows_on_one_line(
    folder: Path, cache: Path, name: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
    path.write_text(WORDS)
    for source in (folder, path):
        (document,) = read(source, cache)[0]
        assert document.text == WORDS
        assert not set("\n\x1b") & set(document.name)
        document.name.encode()
    prepared = prepare(data_config(folder, cache))
    assert prepared.document_at(3) == (document.name, 3)


def test_a_tree_deeper_than_the_stack_is_read(folder: Path, cache: Path) -> None:
    deep = folder
    for _ in range(1200):
        deep = deep / "d"
        deep.mkdir()
    file = deep / "good.txt"
    file.write_text("x")
    try:
        assert text_of(read(folder, cache)[0]) == "x"
    finally:
        # What clears the tests' folders away does so by recursion.
        file.unlink()
        while deep != folder:
            deep.rmdir()
            deep = deep.parent


def test_many_tiny_files_are_each_a_document(folder: Path, cache: Path) -> None:
    for number in range(400):
        (folder / f"{number}").write_text(f"{number}\n")
    prepared = prepare(data_config(folder, cache))
    assert prepared.manifest.train.documents + prepared.manifest.validation.documents == 400
    names = {prepared.document_at(token)[0] for token in range(0, len(prepared.train), 2)}
    assert len(names) == prepared.manifest.train.documents


def test_what_training_writes_into_the_corpus_folder_never_becomes_text(folder: Path, cache: Path) -> None:
    (folder / "good.txt").write_text(WORDS)
    before = open_corpus(data_config(folder, cache)).fingerprint(lambda _: None)
    run = folder / "checkpoints" / "pretrain_small"
    (run / "monitor_logs").mkdir(parents=True)
    (run / "after_step_3").mkdir()
    (folder / "logs").mkdir()
    for name in (
        "config.yaml",
        "tokenizer.json",
        "metrics.jsonl",
        "monitor_logs/e",
        "after_step_3/events.jsonl",
    ):
        (run / name).write_text('{"text": "never"}\n')
    (folder / "logs" / "training.log").write_text("never")
    for source in (folder, f"{folder}/**/*", f"{folder}/*"):
        corpus = open_corpus(data_config(source, cache))
        assert text_of(list(corpus.documents(Skipped()))) == WORDS
    assert open_corpus(data_config(folder, cache)).fingerprint(lambda _: None) == before
    assert len(read(run / "metrics.jsonl", cache)[0]) == 1  # who names it means it
    (folder / "logs" / "other.log").write_text("mine")
    (folder / "config.yaml").write_text("mine")
    assert [document.name for document in read(folder, cache)[0]] == [
        "config.yaml",
        "good.txt",
        "logs/other.log",
    ]


@pytest.mark.parametrize(
    "source", ["a\0b", "x" * 5000, "x" * 300, "/" + "y/" * 3000, "**x", "[", "a[", "[!]", "*" * 100]
)
def test_odd_sources_are_refused_in_one_line(
    folder: Path, cache: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(DataError, match=r"data\.source = ") as caught:
        open_corpus(data_config(source, cache))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("[ab].txt", "ab"), ("[!a].txt", "bc"), ("?.txt", "abc"), ("{a,b}.txt", None), ("*.TXT", None)],
)
def test_globs_mean_what_a_shell_without_braces_means(
    folder: Path, cache: Path, pattern: str, found: str | None
) -> None:
    for name in "abc":
        (folder / f"{name}.txt").write_text(name)
    if found is None:
        with pytest.raises(DataError, match=r"no file matches this glob|no such file"):
            read(f"{folder}/{pattern}", cache)
    else:
        assert text_of(read(f"{folder}/{pattern}", cache)[0]) == found


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no files in"),
        (["", "\ufeff"], "no usable text; skipped 2 empty"),
        (["x"], "the corpus is too small"),
    ],
)
def test_too_little_is_refused_in_one_line(folder: Path, cache: Path, texts: list[str], message: str) -> None:
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        prepare(data_config(folder, cache))
    assert "\n" not in str(caught.value)


def test_odd_parquet_is_passed_over_and_said(folder: Path, cache: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    broken = pyarrow.Array.from_buffers(
        pyarrow.string(),
        2,
        [None, pyarrow.array([0, 1, 3], "i4").buffers()[1], pyarrow.py_buffer(b"a\xff\xfe")],
    )
    columns = {
        "dictionary": pyarrow.array(["one", "two"]).dictionary_encode(),
        "large": pyarrow.array(["three"], pyarrow.large_string()),
        "broken": broken,
        "bytes": pyarrow.array([b"x"]),
        "list": pyarrow.array([["x"]]),
        "numbers": pyarrow.array([1, 2]),
        "struct": pyarrow.array([{"text": "x"}]),
        "none": pyarrow.array([], pyarrow.string()),
    }
    for name, column in columns.items():
        parquet.write_table(pyarrow.table({"text": column}), folder / f"{name}.parquet")
    good = (folder / "dictionary.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(good[:-20])
    (folder / "empty.parquet").write_bytes(b"")
    documents, skipped = read(folder, cache)
    assert sorted(document.text for document in documents) == ["a", "one", "three", "two"]
    assert skipped.counts == {
        "with broken Unicode": 1,
        "without text in the field 'text'": 5,
        "not Parquet": 2,
    }


def test_parquet_with_any_flipped_byte_never_ends_in_a_traceback(folder: Path, cache: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = folder / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", "two", "three"] * 9}), path)
    good = path.read_bytes()
    for place in range(0, len(good), 3):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        with suppress(DataError):
            read(folder, cache)
