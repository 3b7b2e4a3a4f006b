"""What a run says to its user, read off its console as the user would read it, and obeyed."""

import re
from dataclasses import dataclass
from pathlib import Path

from minigpt.training_monitor.words.tables import WORDS


@dataclass(frozen=True)
class Told:
    """An anomaly as it was printed."""

    cause: str
    advice: str
    text: str
    """All of it."""


def read_anomaly(printed: str) -> Told | None:
    """The first anomaly in what a command printed."""
    found = re.search(r"Anomaly detected at step \d+: \w+((?:\n +.*)*)", printed)
    if found is None:
        return None
    label = WORDS["en"]

    def line(key: str) -> str:
        said = re.search(rf"\n +{label[key]}(.*)", found[1])
        return said[1] if said else ""

    return Told(line("cause_label"), line("remedy_label"), found[0])


def obeyed(advice: str, settings: list[str]) -> tuple[str, list[str]] | None:
    """The first setting of the advice, and all settings with it; None: it has none."""
    found = re.search(r"--set ((\w+\.\w+)=[^;\s]+)", advice)
    if found is None:
        return None
    rest = [setting for setting in settings if not setting.startswith(f"{found[2]}=")]
    return found[1], [*rest, found[1]]


def without_document(told: Told, texts: Path) -> str:
    """The broken text that the anomaly names, taken away; "" if it names none."""
    for path in sorted(texts.iterdir()):
        if path.name in told.text:
            path.unlink()
            return f"without {path.name}"
    return ""
