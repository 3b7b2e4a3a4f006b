#!/usr/bin/env python3
"""Does following the monitor's advice help? Tiny runs with a fault, the advice they print, and the runs that follow it.

    python scripts/follow_advice.py                         # all stories, two seeds: about 15 minutes on two cores
    python scripts/follow_advice.py --stories clip eps --seeds 0 --folder runs/

A story is a mistake that a user makes: a setting, or a broken file among the texts. It is trained by `minigpt train`,
as a user would. The first anomaly on its console (where nothing interrupted it: in `minigpt diagnose`) is read, and its
first `--set` obeyed, or the document that it names taken away, in a new run from the start. If that run prints an
anomaly, it is obeyed in turn. `repaired` is the share of the harm, in validation loss, that is gone in the end.
"""

import argparse
import importlib.util
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

if importlib.util.find_spec("minigpt") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.training_monitor.words.tables import WORDS

REPOSITORY = Path(__file__).resolve().parent.parent
BASE = """\
model: {num_layers: 4, hidden_size: 48, num_heads: 4, context_length: 64}
data: {tokenizer: {kind: bytes}, validation_fraction: 0.1}
optimizer: {name: adamw, learning_rate: 1e-3}
schedule: {kind: cosine, warmup_steps: 30}
training: {max_steps: 300, tokens_per_step: 512, micro_batch_size: 8, mixed_precision: off, compile: off, device: cpu,
  eval_every_steps: 150, log_every_steps: 50, eval_tokens: 16384, sample_tokens: 0}
checkpoint: {every_steps: 100}
"""
DOCUMENTS = 80
SIZES = range(6_000, 30_000)
"""Bytes of a text: no single one makes up much of the corpus."""
BROKEN_BYTES = 3_500_000
MOST_ROUNDS = 3
STOPPED = 4
"""Exit code of a run that the monitor stopped."""
KNOWS_NOTHING = math.log(257)
"""Validation loss that is set down for a run which ended before its first evaluation."""


@dataclass(frozen=True)
class Story:
    """A mistake and what the monitor should say of it."""

    name: str
    fault: tuple[str, ...]
    causes: tuple[str, ...]
    """Causes that are a right answer."""
    setting: tuple[str, ...] = ()
    """What the healthy run has too."""
    broken_bytes: int = 0
    """Size of a file of blanks among the texts."""


STORIES = (
    Story("learning rate x 300", ("optimizer.learning_rate=0.3",), ("learning_rate_too_high",)),
    Story("learning rate / 10,000", ("optimizer.learning_rate=1e-7",), ("learning_rate_too_low",)),
    Story(
        "no warm-up at a high rate",
        ("schedule.warmup_steps=0",),
        ("warmup_too_short",),
        ("schedule.warmup_steps=100", "optimizer.learning_rate=0.03", "model.qk_norm=true"),
    ),
    Story("weight decay 300", ("optimizer.weight_decay=300",), ("weight_decay_too_high",)),
    Story("initial weights x 50", ("model.init_std=1",), ("initialized_too_large",)),
    Story(
        "fp16, learning rate x 300,000",
        ("optimizer.learning_rate=300",),
        ("learning_rate_too_high", "fp16_overflow"),
        ("training.mixed_precision=fp16",),
    ),
    Story("clipped to a norm of 1e-6", ("training.max_grad_norm=1e-6",), ("clip_too_low",)),
    Story("eps of Adam 1", ("optimizer.eps=1",), ("eps_too_large",)),
    Story(
        "3/4 of the text is a file of blanks",
        (),
        ("degenerate_data",),
        ("training.tokens_per_step=256", "training.micro_batch_size=4"),
        BROKEN_BYTES,
    ),
)


@dataclass(frozen=True)
class Told:
    """An anomaly as it was printed."""

    step: int
    name: str
    cause: str
    advice: str
    text: str
    by: str
    """The command that printed it."""


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
        "PYTHONPATH": str(REPOSITORY),
        "MINIGPT_CACHE": str(cwd / "cache"),
    }
    command = [sys.executable, "-m", "minigpt", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def read_anomaly(printed: str, by: str) -> Told | None:
    """The first anomaly in what a command printed."""
    found = re.search(r"Anomaly detected at step (\d+): (\w+)((?:\n +.*)*)", printed)
    if found is None:
        return None
    label = WORDS["en"]

    def line(key: str) -> str:
        said = re.search(rf"\n +{label[key]}(.*)", found[3])
        return said[1] if said else ""

    return Told(int(found[1]), found[2], line("cause_label"), line("remedy_label"), found[0], by)


def trained(cwd: Path, name: str, settings: Sequence[str]) -> Trained:
    """A run from the start, its console in NAME.log beside it."""
    typed = [word for setting in settings for word in ("--set", setting)]
    done = minigpt("train", "--config", str(cwd / "base.yaml"), "--run-dir", name, *typed, cwd=cwd)
    printed = done.stdout + done.stderr
    (cwd / f"{name}.log").write_text(printed, encoding="utf-8")
    if done.returncode not in (0, STOPPED):
        raise RuntimeError(f"minigpt train ended with {done.returncode}: {printed[-1000:]}")
    told = read_anomaly(printed, "train")
    if told is None:
        told = read_anomaly(minigpt("diagnose", name, cwd=cwd).stdout, "diagnose")
    losses = re.findall(r"validation_loss=(\S+)", printed)
    loss = float(losses[-1]) if losses and math.isfinite(float(losses[-1])) else KNOWS_NOTHING
    return Trained(told, loss, done.returncode == STOPPED)


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


def report(outcomes: Sequence[Outcome]) -> list[str]:
    """A row a story; losses are means over its seeds."""
    titles = (
        "fault",
        "likely cause, as printed",
        "right",
        "advice followed",
        "with it",
        "after",
        "healthy",
        "repaired",
    )
    rows = [titles, ("---",) * len(titles)]
    for story in dict.fromkeys(outcome.story for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.story == story]
        causes = dict.fromkeys(
            "nothing" if each.faulty.told is None else each.faulty.told.cause for each in own
        )
        advice = dict.fromkeys(", then ".join(each.followed) or "none" for each in own)
        row = (
            story.name,
            "; ".join(causes),
            f"{sum(outcome.is_right for outcome in own)} of {len(own)}",
            "; ".join(f"`{text}`" for text in advice),
            _mean([outcome.faulty for outcome in own]),
            _mean([outcome.last for outcome in own]),
            _mean([outcome.healthy for outcome in own]),
            ", ".join(f"{outcome.repaired:.0%}" for outcome in own),
        )
        rows.append(row)
    return [f"| {' | '.join(row)} |" for row in rows]


def _mean(runs: Sequence[Trained]) -> str:
    if any(run.was_stopped for run in runs):
        return "stopped"
    return f"{statistics.mean(run.loss for run in runs):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stories", nargs="*", metavar="TEXT", help="only those with one of these in their name"
    )
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1], metavar="N", help="default: 0 1")
    parser.add_argument("--processes", type=int, default=2, help="stories at a time (default: 2)")
    parser.add_argument("--folder", type=Path, help="keep the runs here (default: they are thrown away)")
    given = parser.parse_args()
    wanted = given.stories or [""]
    stories = [story for story in STORIES if any(text in story.name for text in wanted)]
    if not stories:
        parser.error(f"no such story; there are: {'; '.join(story.name for story in STORIES)}")
    with tempfile.TemporaryDirectory() as thrown_away, ThreadPoolExecutor(given.processes) as pool:
        folder = (given.folder or Path(thrown_away)).absolute()
        lives = [pool.submit(lived, story, seed, folder) for story in stories for seed in given.seeds]
        print("\n".join(report([life.result() for life in lives])))


if __name__ == "__main__":
    main()
