"""The named configurations that travel with MiniGPT."""

from dataclasses import dataclass
from pathlib import Path

import minigpt
from minigpt.errors import MiniGPTError


@dataclass(frozen=True)
class Preset:
    """A configuration file that is found by its name."""

    name: str
    path: Path
    purpose: str
    """First line of the comment that opens the file."""


def presets() -> dict[str, Preset]:
    """All presets by name: those of the installed package, or of the source checkout's config folder."""
    package = Path(minigpt.__file__).resolve().parent
    for folder in (package / "presets", package.parent / "config"):
        found = sorted(folder.glob("*.yaml"))
        if found:
            return {path.stem: Preset(path.stem, path, _first_comment(path)) for path in found}
    raise MiniGPTError(
        f"no presets found in {package / 'presets'}: the installation is incomplete; reinstall minigpt"
    )


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        line = file.readline()
    return line.removeprefix("#").strip() if line.startswith("#") else ""
