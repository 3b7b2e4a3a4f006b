"""A story as it is lived: the healthy run, the faulty one, and those that follow the advice."""

import math
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minigpt.lab.advice.stories import BASE, Story
from minigpt.lab.advice.told import Told, obeyed, read_anomaly, without_document
from minigpt.training.ending import STOPPED_BY_MONITOR
from minigpt.training_monitor.words.tables import WORDS

PACKAGE_ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = 80
SIZES = range(6_000, 30_000)
"""Bytes of a text: no single one makes up much of the corpus."""
MOST_ROUNDS = 3
KNOWS_NOTHING = math.log(257)
"""Validation loss that is set down for a run which ended before its first evaluation."""


@dataclass(frozen=True)
class Trained:
    """A run: what it told first, its last validation loss, and whether the monitor ended it."""

    told: Told | None
    loss: float
    was_stopped: bool


@dataclass(frozen=True)
class Outcome:
    """A story as it went with one seed."""

    story: Story
    healthy: Trained
    faulty: Trained
    followed: tuple[str, ...]
    last: Trained
    """The run that followed the last advice; the faulty one where there was none."""

    @property
    def repaired(self) -> float:
        """Share of the harm that is gone."""
        return (self.faulty.loss - self.last.loss) / (self.faulty.loss - self.healthy.loss)

    @property
    def is_right(self) -> bool:
        """Whether the sentence after `Likely cause:` is a right one."""
        told = self.faulty.told
        sentences = [WORDS["en"][f"cause.{name}"] for name in self.story.causes]
        return told is not None and any(told.cause.startswith(sentence) for sentence in sentences)


def minigpt(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, on one thread."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(PACKAGE_ROOT),
        "MINIGPT_CACHE": str(cwd / "cache"),
    }
    command = [sys.executable, "-m", "minigpt", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def trained(cwd: Path, name: str, settings: Sequence[str]) -> Trained:
    """A run from the start, its console in NAME.log beside it."""
    typed = [word for setting in settings for word in ("--set", setting)]
    done = minigpt("train", "--config", str(cwd / "base.yaml"), "--run-dir", name, *typed, cwd=cwd)
    printed = done.stdout + done.stderr
    (cwd / f"{name}.log").write_text(printed, encoding="utf-8")
    if done.returncode not in (0, STOPPED_BY_MONITOR):
        raise RuntimeError(f"minigpt train ended with {done.returncode}: {printed[-1000:]}")
    told = read_anomaly(printed)
    if told is None:
        told = read_anomaly(minigpt("diagnose", name, cwd=cwd).stdout)
    losses = re.findall(r"validation_loss=(\S+)", printed)
    loss = float(losses[-1]) if losses and math.isfinite(float(losses[-1])) else KNOWS_NOTHING
    return Trained(told, loss, done.returncode == STOPPED_BY_MONITOR)


def lived(story: Story, seed: int, folder: Path) -> Outcome:
    """The story of a seed, from the healthy run to the one that followed the last advice."""
    slug = re.sub(r"\W+", "_", story.name)
    cwd = folder / f"{slug}_{seed}"
    cwd.mkdir(parents=True)
    (cwd / "base.yaml").write_text(BASE, encoding="utf-8")
    texts = written_texts(cwd / "texts")
    common = [f"data.source={texts}", f"training.seed={seed}", f"data.seed={seed}", *story.setting]
    healthy = trained(cwd, "healthy", common)
    if story.broken_bytes:
        (texts / "export_0417.txt").write_text(" " * story.broken_bytes, encoding="utf-8")
    settings = [*common, *story.fault]
    last = faulty = trained(cwd, "faulty", settings)
    followed: list[str] = []
    while last.told is not None and len(followed) < MOST_ROUNDS:
        removed = without_document(last.told, texts)
        step = (removed, settings) if removed else obeyed(last.told.advice, settings)
        if step is None or step[0] in followed:
            break
        followed.append(step[0])
        settings = step[1]
        last = trained(cwd, f"advice_{len(followed)}", settings)
    return Outcome(story, healthy, faulty, tuple(followed), last)


def written_texts(folder: Path) -> Path:
    """A folder of the standard library's modules of middling size, the same ones every time."""
    folder.mkdir()
    library = Path(sysconfig.get_paths()["stdlib"])
    fitting = [path for path in sorted(library.glob("*.py")) if path.stat().st_size in SIZES]
    for path in fitting[:DOCUMENTS]:
        shutil.copy(path, folder / f"{path.stem}.txt")
    return folder
