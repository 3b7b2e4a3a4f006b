"""Small corpora, and tokens without a corpus."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from minigpt.data.config import DataConfig, TokenizerConfig
from minigpt.data.shards import ShardWriter, Tokens

MakeTokens = Callable[[Sequence[int]], Tokens]


@pytest.fixture
def make_tokens(tmp_path: Path) -> MakeTokens:
    """Tokens on disk in shards of seven."""

    def make(ids: Sequence[int]) -> Tokens:
        dtype = np.dtype("<u2")
        with ShardWriter(tmp_path, "train", dtype, shard_tokens=7) as writer:
            writer.start_documents(["numbers"], [0])
            writer.append(np.array(ids, dtype), text_bytes=len(ids))
            info = writer.finish()
        return Tokens(tmp_path, "train", info, dtype, vocab_size=1 << 16)

    return make


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Thirty different text files."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02d}.txt").write_text(f"document {number}\n" * 20)
    return folder


def data_config(source: str | list[str] | Path, cache: Path, **more: object) -> DataConfig:
    """Plain bytes of `source`, unless said otherwise."""
    settings = {"tokenizer": TokenizerConfig(kind="bytes"), "cache_dir": str(cache), "num_workers": 2} | more
    return DataConfig.model_validate(
        {"source": source if isinstance(source, list) else str(source)} | settings
    )
