"""Parquet files, a batch of rows at a time: the text in one named column."""

from collections.abc import Iterator
from pathlib import Path

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
                for text in batch.column(0).to_pylist():
                    row += 1
                    yield from record(text, text_field, f"{name}:{row}", skipped)
    except pyarrow.ArrowException:
        skipped.add("not Parquet", name)
