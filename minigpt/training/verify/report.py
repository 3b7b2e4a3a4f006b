"""What was found out about each file, and what to do about it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Status = Literal["good", "note", "damaged"]


@dataclass(frozen=True)
class Checked:
    """One file, or one folder that is checked as a whole."""

    file: str
    """As seen from the place that was verified."""
    status: Status
    """note: not damage, but worth knowing."""
    text: str


@dataclass(frozen=True)
class Report:
    """All that was found out about a place."""

    path: Path
    files: tuple[Checked, ...]
    advice: str
    """What --resume would do, or what there is to do."""
    resume_from: Path | None = None
    """The checkpoint that --resume would take."""

    @property
    def damaged(self) -> list[Checked]:
        return [checked for checked in self.files if checked.status == "damaged"]

    @property
    def good(self) -> bool:
        return not self.damaged

    def summary(self) -> str:
        """One line."""
        if self.good:
            return f"good: {_files(len(self.files))} checked, none is damaged; {self.advice}"
        names = ", ".join(checked.file for checked in self.damaged[:5])
        more = ", ..." if len(self.damaged) > 5 else ""
        return f"damaged: {len(self.damaged)} of {_files(len(self.files))} ({names}{more}); {self.advice}"

    def lines(self) -> list[str]:
        """A line a file, then the summary."""
        return [*(f"{each.status:8} {each.file}: {each.text}" for each in self.files), self.summary()]

    def as_data(self) -> dict[str, Any]:
        """For programs."""
        return {
            "path": str(self.path),
            "good": self.good,
            "summary": self.summary(),
            "resume_from": None if self.resume_from is None else str(self.resume_from),
            "files": [asdict(checked) for checked in self.files],
        }


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
