"""tokenizer: there and back, whole characters, no smuggled special tokens."""

import hashlib
from pathlib import Path

import pytest
import tokenizers

from minigpt.data.tokenizer import END_OF_TEXT, StreamDecoder, Tokenizer, bytes_tokenizer, train_bpe
from minigpt.errors import DataError

TEXT = [
    "def add(left, right):\n    return left + right\n" * 20,
    "Grüße, 世界 🙂\r\n\ttab <|endoftext|>\n" * 20,
]


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train_bpe(TEXT, 300)


@pytest.mark.parametrize(
    "text", ["", " ", "def add(\r\n\t", "Grüße 🙂 \x00\x7f", "a<|endoftext|>b", "\u2028é\ufffd"]
)
def test_decode_returns_what_was_encoded(bpe: Tokenizer, text: str) -> None:
    for tokenizer in (bpe, bytes_tokenizer()):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.end_of_text_id not in tokenizer.encode(text)
        assert tokenizer.encode_batch([text, text]) == [tokenizer.encode(text)] * 2


def test_bytes_tokenizer_maps_each_byte_to_its_value() -> None:
    tokenizer = bytes_tokenizer()
    assert tokenizer.encode("é\n<") == [0xC3, 0xA9, 0x0A, 0x3C]
    assert (tokenizer.vocab_size, tokenizer.end_of_text_id) == (257, 256)


def test_training_is_deterministic(bpe: Tokenizer) -> None:
    assert train_bpe(TEXT, 300).id == bpe.id
    assert bpe.vocab_size == 300


def test_training_says_what_the_corpus_supports_when_the_vocabulary_is_too_large() -> None:
    with pytest.raises(
        DataError, match=r"vocab_size = 5000, but .* supports only (\d+) tokens; set .*=\1 or less"
    ):
        train_bpe(TEXT, 5000)


def test_a_saved_tokenizer_loads_as_the_same(bpe: Tokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path / "tokenizer.json")
    assert hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest() == bpe.id
    assert Tokenizer.load(tmp_path / "tokenizer.json").id == bpe.id


def test_a_given_tokenizer_neither_truncates_nor_pads(bpe: Tokenizer, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(bpe.to_json())
    backend.enable_truncation(4)
    backend.enable_padding(length=9)
    backend.save(str(tmp_path / "given.json"))
    assert Tokenizer.load(tmp_path / "given.json").encode_batch(["def add(left, right)", "x"]) == [
        bpe.encode("def add(left, right)"),
        bpe.encode("x"),
    ]


@pytest.mark.parametrize("name", ["</s>", "<|end_of_text|>", "<eos>"])
def test_a_given_tokenizer_s_end_of_text_is_found(bpe: Tokenizer, tmp_path: Path, name: str) -> None:
    (tmp_path / "given.json").write_text(bpe.to_json().replace(END_OF_TEXT, name), encoding="utf-8")
    assert Tokenizer.load(tmp_path / "given.json").end_of_text_id == bpe.end_of_text_id


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("{}", "not a tokenizer.json"), ("no end", "has no end-of-text token")],
)
def test_load_says_what_is_wrong(bpe: Tokenizer, tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "given.json"
    if content is not None:
        path.write_text(
            bpe.to_json().replace(END_OF_TEXT, "<other>") if content == "no end" else content, "utf-8"
        )
    with pytest.raises(DataError, match=message) as caught:
        Tokenizer.load(path)
    assert "\n" not in str(caught.value)


def test_stream_decoder_shows_whole_characters_only(bpe: Tokenizer) -> None:
    text = "Ünï 🙂世界!\n"
    for tokenizer in (bpe, bytes_tokenizer()):
        decoder = StreamDecoder(tokenizer)
        shown = [decoder.push(token_id) for token_id in tokenizer.encode(text)]
        assert "".join(shown) == text
        assert "\ufffd" not in "".join(shown)
        assert decoder.flush() == ""


def test_stream_decoder_does_not_hold_broken_bytes_for_ever() -> None:
    decoder = StreamDecoder(bytes_tokenizer())
    shown = [decoder.push(0xF0) for _ in range(8)]
    assert shown[-1] == "\ufffd" * 8
    assert decoder.push(ord("a")) == "a"
    assert decoder.push(0xC3) == ""
    assert decoder.flush() == "\ufffd"
