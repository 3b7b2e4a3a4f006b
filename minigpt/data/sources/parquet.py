"""Parquet files, a batch of rows at a time: the text in one named column."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigpt.data.document import Document, Skipped, record
from minigpt.data.sources.text import most_unpacked
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
        with pyarrow.parquet.ParquetFile(path, read_dictionary=_as_dictionary(path, text_field)) as file:
            columns = file.schema_arrow.names
            if text_field not in columns:
                raise DataError(
                    f"{path} has no column {text_field!r}; its columns are {', '.join(columns)}: "
                    "set data.text_field"
                )
            row, left = 0, most_unpacked(path.stat().st_size)
            for batch in file.iter_batches(_ROWS_PER_BATCH, columns=[text_field]):
                for text in _values(batch.column(0)):
                    row += 1
                    left -= len(text) if isinstance(text, str) else 0
                    if left < 0:
                        skipped.add("a decompression bomb", f"{name}:{row}")
                        return
                    yield from record(text, text_field, f"{name}:{row}", skipped)
    except pyarrow.ArrowException:
        skipped.add("not Parquet", name)


def _values(column: Any) -> Iterator[object]:
    """The column's values, text that is no UTF-8 in the spelling of Python's surrogates."""
    if hasattr(column, "dictionary"):
        # Of a text that many rows mention, one object.
        known: dict[int | None, object] = {None: None}
        for index in column.indices.to_pylist():
            if index not in known:
                known[index] = _value(column.dictionary[index])
            yield known[index]
        return
    try:
        values = list(column.to_pylist())
    except UnicodeDecodeError:  # one by one, a hundred times as slow
        values = [_value(scalar) for scalar in column]
    yield from values


def _value(scalar: Any) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return bytes(error.object).decode("utf-8", "surrogateescape")


def _as_dictionary(path: Path, text_field: str) -> list[str] | None:
    """The column where it holds text: one long string that a million rows mention then stays one."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(path)
    places = schema.get_all_field_indices(text_field)
    is_text = len(places) == 1 and pyarrow.types.is_string(schema.field(places[0]).type)
    return [text_field] if is_text else None
