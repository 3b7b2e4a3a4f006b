"""Text to shards against the tokenizers library's own batch encode, which only encodes."""

import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pydoc_data.topics import topics

import tokenizers

from minigpt.data.config import DataConfig
from minigpt.data.corpus import open_corpus
from minigpt.data.document import Skipped
from minigpt.data.prepare import prepare
from minigpt.data.sources.python_code import stdlib_files
from minigpt.lab.data_path.measured import spread, taking_turns

VOCAB_SIZE = 4096


@contextmanager
def corpora(megabytes: int) -> Iterator[dict[str, str]]:
    """Sources by name: the standard library's files, short texts of 80 to 600 characters, one giant text."""
    with tempfile.TemporaryDirectory() as folder:
        short, giant = Path(folder, "short.jsonl"), Path(folder, "giant.txt")
        _write_short(short, megabytes << 20)
        _write_giant(giant, megabytes << 20)
        yield {"python-stdlib": "python-stdlib", "short texts": str(short), "one giant text": str(giant)}


def compare(source: str, tokenizer: Path, rounds: int) -> list[str]:
    """A table: the library's encode of texts in memory, by all cores, and the whole of `minigpt prepare`.

    The library is given the giant text in pieces: as one text it would use one core. It neither reads, splits, hashes
    nor writes, and starts with a fresh cache of words, as our own does.
    """
    with tempfile.TemporaryDirectory() as cache:
        config = DataConfig.model_validate(
            {
                "source": source,
                "tokenizer": {"kind": "file", "path": str(tokenizer)},
                "cache_dir": str(Path(cache, "cache")),
            }
        )
        texts = [document.text for document in open_corpus(config).documents(Skipped())]
        megabytes = sum(len(text.encode()) for text in texts) / 1e6

        def whole_path() -> None:
            shutil.rmtree(config.cache_folder(), ignore_errors=True)
            prepare(config, progress=False)

        seconds = taking_turns(
            {
                "encode_batch": lambda: _encode(tokenizer, texts, fast=False),
                "encode_batch_fast": lambda: _encode(tokenizer, texts, fast=True),
                "minigpt prepare": whole_path,
            },
            rounds,
        )
    own = seconds["minigpt prepare"]
    lines = [f"{len(texts):,} texts or pieces, {megabytes:.1f} MB, {rounds} rounds"]
    for name, taken in seconds.items():
        speeds = [megabytes / one for one in taken]
        ratios = [theirs / ours for theirs, ours in zip(taken, own, strict=True)]
        lines.append(f"  {name:18s} {spread(speeds, '.1f'):24s} MB/s   prepare is {spread(ratios)} x as fast")
    return lines


def trained_tokenizer(folder: Path) -> Path:
    """A BPE of VOCAB_SIZE tokens, trained on the standard library."""
    config = DataConfig.model_validate(
        {"tokenizer": {"kind": "bpe", "vocab_size": VOCAB_SIZE}, "cache_dir": str(folder / "cache")}
    )
    return prepare(config, progress=False).tokenizer_path


def _encode(tokenizer: Path, texts: Sequence[str], *, fast: bool) -> list[list[int]]:
    backend = tokenizers.Tokenizer.from_file(str(tokenizer))
    backend.encode_special_tokens = True
    encode = backend.encode_batch_fast if fast else backend.encode_batch
    return [encoding.ids for encoding in encode(texts, add_special_tokens=False)]


def _write_short(path: Path, size: int) -> None:
    paragraphs = [part for text in topics.values() for part in text.split("\n\n") if part.strip()]
    drawn = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            text = drawn.choice(paragraphs)[: drawn.randint(80, 600)]
            file.write(json.dumps({"text": text}) + "\n")


def _write_giant(path: Path, size: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            for source in stdlib_files():
                file.write(source.path.read_text(encoding="utf-8", errors="replace"))
                if file.tell() >= size:
                    return
