"""Every source and file format by name, and the corpus that a configuration asks for."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from minigpt.data.config import DataConfig
from minigpt.data.document import Document, Skipped
from minigpt.data.progress import Tick
from minigpt.data.sources.files import FileCorpus, Reader
from minigpt.data.sources.huggingface import HuggingFaceCorpus
from minigpt.data.sources.jsonl import read_jsonl
from minigpt.data.sources.parquet import read_parquet
from minigpt.data.sources.paths import find_files
from minigpt.data.sources.python_code import environment_files, stdlib_files
from minigpt.data.sources.text import read_text


class Source(Protocol):
    """Documents in a fixed order, and two digests that tell whether they are still the same."""

    @property
    def is_remote(self) -> bool: ...
    def documents(self, skipped: Skipped) -> Iterator[Document]: ...
    def state(self) -> str: ...
    def fingerprint(self, tick: Tick) -> str: ...
    def size_bytes(self) -> int | None: ...


READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl,
    ".ndjson": read_jsonl,
    ".parquet": read_parquet,
}
"""By the end of the file's name; every other file is plain text."""

SOURCES: dict[str, Callable[[str, DataConfig], Source]] = {
    "python-stdlib": lambda spec, config: FileCorpus(stdlib_files(), reader_of, config.text_field),
    "python-env": lambda spec, config: FileCorpus(environment_files(), reader_of, config.text_field),
    "hf:": lambda spec, config: HuggingFaceCorpus(
        spec.removeprefix("hf:"), config.hf_config, config.hf_split, config.hf_revision, config.text_field
    ),
}
"""By a full name, or by a beginning that ends in a colon; everything else is a path."""


def reader_of(file_name: str) -> Reader:
    """The reader for a file of this name."""
    lower = file_name.lower()
    return next((reader for suffix, reader in READERS.items() if lower.endswith(suffix)), read_text)


def open_sources(config: DataConfig) -> Sequence[Source]:
    """The sources of data.source, listed but not yet read: the named ones, then all paths as one."""
    specs = [config.source] if isinstance(config.source, str) else config.source
    sources: list[Source] = []
    paths: list[str] = []
    for spec in dict.fromkeys(specs):
        if (make := _named(spec)) is not None:
            sources.append(make(spec, config))
        else:
            paths.append(spec)
    if paths:
        sources.append(FileCorpus(find_files(paths, config.cache_folder()), reader_of, config.text_field))
    return sources


def _named(spec: str) -> Callable[[str, DataConfig], Source] | None:
    for name, make in SOURCES.items():
        if spec == name or (name.endswith(":") and spec.startswith(name)):
            return make
    return None
