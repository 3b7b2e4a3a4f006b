"""Datasets of the Hugging Face hub, or in a local folder, streamed: `hf:NAME`."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.data.document import Document, Skipped, record
from minigpt.data.progress import Tick
from minigpt.data.sources.files import CorpusFile, FileCorpus
from minigpt.data.sources.text import read_text
from minigpt.errors import DataError, MissingExtraError


@dataclass(frozen=True)
class HuggingFaceCorpus:
    """One split of a dataset; its content is taken to be fixed by name, configuration, split and revision."""

    name: str
    config: str | None
    split: str
    revision: str | None
    text_field: str

    @property
    def is_remote(self) -> bool:
        """Whether reading it twice means downloading it twice."""
        return not Path(self.name).expanduser().exists()

    def documents(self, skipped: Skipped) -> Iterator[Document]:
        """One document a row, named `hf:NAME/split:row`, downloaded as it is read."""
        rows = self._open()
        iterator = iter(rows)
        number = 0
        while True:
            try:
                row = next(iterator, None)
            except Exception as error:
                raise self._failure("reading failed", error) from error
            if row is None:
                break
            number += 1
            if self.text_field not in row:
                raise DataError(
                    f"hf:{self.name} has no field {self.text_field!r}; its fields are {', '.join(row)}: "
                    "set data.text_field"
                )
            yield from record(
                row[self.text_field], self.text_field, f"hf:{self.name}/{self.split}:{number}", skipped
            )

    def state(self) -> str:
        """Digest of what names the data; for a local folder, of its files' states too."""
        return self._digest(self._local_files().state() if not self.is_remote else "")

    def fingerprint(self, tick: Tick) -> str:
        """Digest of what names the data; for a local folder, of its files' contents too."""
        return self._digest(self._local_files().fingerprint(tick) if not self.is_remote else "")

    def size_bytes(self) -> int | None:
        """Unknown before it is read."""
        return None

    def _digest(self, contents: str) -> str:
        identity = [self.name if self.is_remote else "", self.config, self.split, self.revision, contents]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def _local_files(self) -> FileCorpus:
        root = Path(self.name).expanduser()
        paths = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
        return FileCorpus(
            [CorpusFile(path, path.name) for path in paths], lambda _: read_text, self.text_field
        )

    def _open(self) -> Iterable[dict[str, Any]]:
        if not self.name.strip():  # the library would take it for the current folder
            raise DataError(
                "data.source = hf: names no dataset; write hf:NAME, such as hf:roneneldan/TinyStories"
            )
        try:
            import datasets
        except ImportError as error:
            raise MissingExtraError(f"data.source = hf:{self.name}", "datasets", "data") from error
        path = self.name if self.is_remote else str(Path(self.name).expanduser())
        try:
            rows: Iterable[dict[str, Any]] = datasets.load_dataset(
                path, self.config, split=self.split, revision=self.revision, streaming=True
            )
        except Exception as error:
            raise self._failure("cannot be opened", error) from error
        return rows

    def _failure(self, what: str, error: Exception) -> DataError:
        hint = ""
        if self.is_remote and "reach" in str(error):
            hint = "; check the name and the network, or give a local folder"
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return DataError(
            f"data.source = hf:{self.name} (data.hf_config = {self.config or 'null'}, "
            f"data.hf_split = {self.split}): {what}: {first_line}{hint}"
        )
