"""A table whose cells keep their numbers: the same for people, for spreadsheets and for programs."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minigpt.lab.experiments.intervals import Mean, Ratio, Share

Cell = Mean | Ratio | Share | float | int | str | None


@dataclass(frozen=True)
class Table:
    """Rows under named columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    form: str = ".3f"
    """How means and floats are written for people."""

    def markdown(self) -> str:
        """Aligned, so that it reads in a terminal as well."""
        cells = [self.columns, *([_text(cell, self.form) for cell in row] for row in self.rows)]
        widths = [max(len(row[index]) for row in cells) for index in range(len(self.columns))]
        lines = [
            "| " + " | ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) + " |"
            for row in cells
        ]
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        return "\n".join([f"**{self.title}**", "", lines[0], rule, *lines[1:]])

    def csv(self) -> str:
        """A mean takes three columns: itself, and the ends of its interval; a share its count and the total."""
        parts = [[_parts(name, row[index]) for row in self.rows] for index, name in enumerate(self.columns)]
        names = [list(dict.fromkeys(key for cell in column for key in cell)) for column in parts]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([key for column in names for key in column])
        for number in range(len(self.rows)):
            writer.writerow(
                [
                    column[number].get(key, "")
                    for column, keys in zip(parts, names, strict=True)
                    for key in keys
                ]
            )
        return out.getvalue()

    def plain(self) -> dict[str, Any]:
        """For JSON; what is not finite is null."""
        rows = [
            {
                key: value
                for name, cell in zip(self.columns, row, strict=True)
                for key, value in _parts(name, cell).items()
            }
            for row in self.rows
        ]
        return {"title": self.title, "rows": rows}


def _text(cell: Cell, form: str) -> str:
    match cell:
        case None:
            return "-"
        case Mean():
            return cell.text(form)
        case Share() | Ratio():
            return cell.text()
        case float():
            return format(cell, form) if math.isfinite(cell) else "not finite"
        case _:
            return str(cell)


def _parts(name: str, cell: Cell) -> Mapping[str, Any]:
    match cell:
        case Mean():
            low, high = (None, None) if cell.half_width is None else (cell.low, cell.high)
            return {
                name: _finite(cell.value),
                f"{name} low": low,
                f"{name} high": high,
                f"{name} runs": cell.count,
            }
        case Ratio():
            low, high = (_finite(cell.low), _finite(cell.high)) if cell.count > 1 else (None, None)
            return {
                name: _finite(cell.value),
                f"{name} low": low,
                f"{name} high": high,
                f"{name} runs": cell.count,
            }
        case Share():
            return {name: cell.count, f"{name} of": cell.of}
        case float():
            return {name: _finite(cell)}
        case _:
            return {name: cell}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def columns_of(head: Sequence[str], rows: Sequence[Sequence[Cell]], title: str, form: str = ".3f") -> Table:
    """A Table from lists."""
    return Table(title, tuple(head), tuple(tuple(row) for row in rows), form)
