"""split: by content, exact in small corpora, never without a validation part."""

import pytest

from minigpt.data.document import PIECE_CHARACTERS, Document, pieces
from minigpt.data.split import SplitByHash, SplitByTail, content_hash, plan_split


def quiet(done_bytes: int) -> None:
    """A tick that nobody watches."""


def documents(count: int) -> list[Document]:
    return [Document(f"text {number}\n", f"{number}") for number in range(count)]


def test_split_takes_an_exact_share_when_documents_are_few() -> None:
    split = plan_split(documents(40), 0.05, seed=0, tick=quiet)
    assert isinstance(split, SplitByHash)
    assert [part for part, _ in split.parts(documents(40))].count("validation") == 2


def test_split_takes_about_its_share_when_documents_are_many() -> None:
    split = plan_split(documents(20_000), 0.05, seed=0, tick=quiet)
    assert split == SplitByHash(0, int(0.05 * 2**64))
    assert 900 < [part for part, _ in split.parts(documents(20_000))].count("validation") < 1100


def test_split_puts_duplicates_together() -> None:
    twice = documents(40) * 2
    split = plan_split(twice, 0.05, seed=0, tick=quiet)
    parts = [part for part, _ in split.parts(twice)]
    assert parts[:40] == parts[40:]
    assert "validation" in parts


def test_split_depends_on_the_seed_and_the_text_only() -> None:
    assert content_hash("a", 0) == content_hash("a", 0) != content_hash("a", 1) != content_hash("b", 1)


def test_split_keeps_the_pieces_of_a_document_together() -> None:
    long = list(pieces("word\n" * PIECE_CHARACTERS, "long"))
    assert len(long) == 6  # a cut at a line end leaves a few characters over
    assert [piece.last for piece in long] == [False] * 5 + [True]
    assert "".join(piece.text for piece in long) == "word\n" * PIECE_CHARACTERS
    parts = {part for part, _ in SplitByHash(0, 1 << 63).parts(long)}
    assert len(parts) == 1


def test_tail_split_cuts_each_of_few_documents_at_a_line_end() -> None:
    few = [Document("one\ntwo\nthree\nfour\n", "a"), Document("x\n" * 10, "b")]
    split = plan_split(few, 0.25, seed=0, tick=quiet)
    assert split == SplitByTail((14, 15))
    assert [(part, piece.text, piece.last) for part, piece in split.parts(few)] == [
        ("train", "one\ntwo\nthree\n", True),
        ("validation", "four\n", True),
        ("train", "x\n" * 8, True),
        ("validation", "x\n" * 2, True),
    ]


def test_tail_split_cuts_where_it_stands_when_there_is_no_line_end() -> None:
    split = plan_split([Document("abcdefghij", "a")], 0.2, seed=0, tick=quiet)
    assert [piece.text for _, piece in split.parts([Document("abcdefghij", "a")])] == ["abcdefgh", "ij"]


def test_tail_split_ends_both_parts_of_a_document_in_pieces() -> None:
    split = SplitByTail((8,))
    several = [
        Document("aaaa", "d", 0, last=False),
        Document("bbbb", "d", 4, last=False),
        Document("cccc", "d", 8),
    ]
    assert [(part, piece.text, piece.last) for part, piece in split.parts(several)] == [
        ("train", "aaaa", False),
        ("train", "bbbb", False),
        ("train", "", True),
        ("validation", "cccc", True),
    ]


def test_split_is_empty_without_documents() -> None:
    assert plan_split([], 0.05, seed=0, tick=quiet).is_empty


@pytest.mark.parametrize("text", ["title\n" + 100 * "x", "a\n" + 98 * "x" + "\ny"])
def test_tail_split_keeps_its_share_when_lines_are_long(text: str) -> None:
    documents = [Document(text, "one.txt", 0, last=True)]
    split = plan_split(documents, 0.1, seed=0, tick=quiet)
    sizes = {part: len(document.text) for part, document in split.parts(documents)}
    assert sizes == {"train": len(text) - 11, "validation": 11}
