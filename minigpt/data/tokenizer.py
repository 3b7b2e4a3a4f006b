"""Text to token ids and back: byte-level BPE, plain bytes, or any tokenizer.json, all behind one class."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from minigpt.atomic import write_text_atomically
from minigpt.data.tokenizer_file import check_tokenizer, tokenizer_text
from minigpt.errors import DataError, user_path

END_OF_TEXT = "<|endoftext|>"
_KNOWN_END_OF_TEXT = (
    END_OF_TEXT,
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|eos|>",
    "<|im_end|>",
    "<EOS>",
    "[EOS]",
)
_MIN_PAIR_COUNT = 2
_MAX_HELD_TOKENS = 8


class Tokenizer:
    """A vocabulary with an end-of-text token; text that spells a special token is never taken for one."""

    def __init__(self, json: str) -> None:
        backend = tokenizers.Tokenizer.from_str(json)
        # A tokenizer.json may carry these from its model's training; here they would drop or invent tokens.
        backend.no_truncation()
        backend.no_padding()
        # Else "<|endoftext|>" inside a document would end it.
        backend.encode_special_tokens = True
        self._backend = backend
        self._json = backend.to_str()
        self.id = hashlib.sha256(self._json.encode("utf-8")).hexdigest()
        self.vocab_size: int = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self.end_of_text_id = _end_of_text_id(backend)
        self._is_bytes = backend.get_vocab(with_added_tokens=False) == _byte_vocabulary()

    @classmethod
    def load(cls, path: Path) -> Self:
        """The tokenizer in a tokenizer.json; DataError where it is none or has no end-of-text token."""
        json = tokenizer_text(user_path(path, "data.tokenizer.path"))
        try:
            check_tokenizer(json)
            return cls(json)
        except DataError as error:
            raise DataError(f"tokenizer {path}: {error}") from error
        except BaseException as error:  # the library raises plain Exception, and panics as what is none
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise DataError(
                f"tokenizer {path}: not a tokenizer.json of the tokenizers library: {error}"
            ) from error

    def save(self, path: Path) -> None:
        """Writes the tokenizer.json, atomically."""
        write_text_atomically(path, self._json)

    def to_json(self) -> str:
        """The tokenizer.json's text."""
        return self._json

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, nothing added."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, nothing added."""
        if self._is_bytes:
            return [list(text.encode("utf-8")) for text in texts]
        return [
            encoding.ids
            for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; special tokens show as what they are called."""
        return str(self._backend.decode(list(ids), skip_special_tokens=False))


class StreamDecoder:
    """Text of a growing sequence of ids: whole characters only, as soon as they are certain."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._shown: list[int] = []
        self._held: list[int] = []

    def push(self, token_id: int) -> str:
        """The text that is complete with this token; empty in the middle of a character."""
        self._held.append(token_id)
        text = self._new_text()
        # A sequence that is no UTF-8 at all must not be held back for ever.
        if text.endswith("\ufffd") and len(self._held) < _MAX_HELD_TOKENS:
            return ""
        # After broken bytes the next ones start afresh, or they would change what is shown already.
        self._shown, self._held = [] if text.endswith("\ufffd") else self._held, []
        return text

    def flush(self) -> str:
        """What is still held back, broken characters included."""
        text = self._new_text()
        self._shown, self._held = self._held, []
        return text

    def _new_text(self) -> str:
        # Decoding with the tokens before keeps the leading spaces that some decoders strip.
        before = self._tokenizer.decode(self._shown)
        return self._tokenizer.decode([*self._shown, *self._held])[len(before) :]


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE trained on `texts`; DataError where they do not support so large a vocabulary."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_PAIR_COUNT,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    characters = 0

    def counted() -> Iterable[str]:
        nonlocal characters
        for text in texts:
            characters += len(text)
            yield text

    backend.train_from_iterator(counted(), trainer)
    size = backend.get_vocab_size()
    if size < vocab_size:
        raise DataError(
            f"data.tokenizer.vocab_size = {vocab_size}, but the corpus ({characters:,} characters) supports "
            f"only {size} tokens; set data.tokenizer.vocab_size={size} or less, data.tokenizer.kind=bytes, "
            "or give more text"
        )
    return Tokenizer(backend.to_str())


def bytes_tokenizer() -> Tokenizer:
    """Token id = byte value, 256 = end of text."""
    backend = tokenizers.Tokenizer(models.BPE(vocab=_byte_vocabulary(), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([END_OF_TEXT])
    return Tokenizer(backend.to_str())


def _byte_vocabulary() -> dict[str, int]:
    """The printable characters that byte-level tokenizers write for the byte values."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = iter(range(0x100, 0x200))
    return {chr(byte) if byte in shown else chr(next(hidden)): byte for byte in range(256)}


def _end_of_text_id(backend: tokenizers.Tokenizer) -> int:
    for name in _KNOWN_END_OF_TEXT:
        if (token_id := backend.token_to_id(name)) is not None:
            return int(token_id)
    raise DataError(
        f"has no end-of-text token (looked for {', '.join(_KNOWN_END_OF_TEXT)}); "
        f'add one: tokenizers.Tokenizer.from_file(path).add_special_tokens(["{END_OF_TEXT}"]), then save it'
    )
