"""Text in columns, Chinese characters being two columns wide."""

import unicodedata
from collections.abc import Sequence


def width(text: str) -> int:
    """Columns that the text takes in a terminal."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def padded(text: str, columns: int) -> str:
    """The text, filled up on the right."""
    return text + " " * (columns - width(text))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows with aligned cells, two spaces apart."""
    widths = [max(width(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(padded(cell, columns) for cell, columns in zip(row, widths, strict=True)).rstrip()
            for row in rows]  # fmt: skip
