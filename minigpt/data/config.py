"""Which text, how it is cut into tokens, and where the prepared shards live."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from minigpt.errors import user_path
from minigpt.schema import Config, Float, Int


class TokenizerConfig(Config):
    """How text becomes token ids."""

    kind: Literal["bpe", "bytes", "file"] = "bpe"
    """bpe: byte-level BPE trained on the corpus; bytes: 256 byte values; file: tokenizer.json at `path`."""
    vocab_size: Annotated[Int, Field(ge=257, le=1_000_000)] = 8192
    """Vocabulary to train (kind bpe only), with the end-of-text token."""
    path: Annotated[str, Field(min_length=1)] | None = None
    """A tokenizer.json of the `tokenizers` library (kind file only)."""

    @model_validator(mode="after")
    def _check_path(self) -> Self:
        if self.kind == "file" and self.path is None:
            raise ValueError("kind = file needs path: the tokenizer.json to use")
        if self.kind != "file" and self.path is not None:
            raise ValueError(
                f"path = {self.path[:60]!r} is only read with kind = file, but kind = {self.kind}; set kind: file"
            )
        return self


class DataConfig(Config):
    """The corpus and its preparation."""

    source: str | list[str] = "python-stdlib"
    """python-stdlib | python-env | hf:NAME (Hugging Face) | files, globs, folders: text, .jsonl, .parquet."""
    text_field: str = "text"
    """The field that holds the text (JSONL, Parquet, Hugging Face)."""
    hf_config: str | None = None
    """Configuration name of a Hugging Face dataset, where it has several."""
    hf_split: str = "train"
    """Split of a Hugging Face dataset."""
    hf_revision: str | None = None
    """Commit or tag of a Hugging Face dataset; null: the newest."""
    max_documents: Annotated[Int, Field(ge=1)] | None = None
    """Read at most this many documents (a taste of a large streamed dataset); null: all."""
    validation_fraction: Annotated[Float, Field(gt=0, lt=1)] = 0.05
    """Share of the documents kept for validation, chosen by their content's hash."""
    seed: Int = 0
    """Chooses the validation documents and the order of the training windows."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How text becomes token ids."""
    cache_dir: Annotated[str, Field(min_length=1)] | None = None
    """Where prepared shards live; null: $MINIGPT_CACHE or ~/.cache/minigpt."""
    num_workers: Annotated[Int, Field(ge=1)] | None = None
    """Threads that tokenize; null: one a core."""

    def cache_folder(self) -> Path:
        """`cache_dir`, else $MINIGPT_CACHE, else ~/.cache/minigpt."""
        chosen = self.cache_dir or os.environ.get("MINIGPT_CACHE") or "~/.cache/minigpt"
        return user_path(chosen, "data.cache_dir").absolute()
