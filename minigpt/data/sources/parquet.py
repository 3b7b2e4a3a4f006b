"""Parquet files, a batch of rows at a time: the text in one named column."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigpt.data.document import Document, Skipped, record
from minigpt.errors import DataError, MissingExtraError

_ROWS_PER_BATCH = 256


def read_parquet(path: Path, name: str, text_field: str, skipped: Skipped) -> Iterator[Document]:
    """One document a row, named `file:row`; rows without text are counted and passed over."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(f"reading the Parquet file {path}", "pyarrow", "data") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if text_field not in columns:
                raise DataError(
                    f"{path} has no column {text_field!r}; its columns are {', '.join(columns)}: "
                    "set data.text_field"
                )
            row = 0
            for batch in file.iter_batches(_ROWS_PER_BATCH, columns=[text_field]):
                for text in _values(batch.column(0)):
                    row += 1
                    yield from record(text, text_field, f"{name}:{row}", skipped)
    except pyarrow.ArrowException:
        skipped.add("not Parquet", name)


def _values(column: Any) -> list[object]:
    """The column's values, text that is no UTF-8 in the spelling of Python's surrogates."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:  # one by one, a hundred times as slow
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return bytes(error.object).decode("utf-8", "surrogateescape")
