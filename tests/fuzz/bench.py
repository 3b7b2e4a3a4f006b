"""A folder in which cases are tried: a corpus, a tiny configuration, a run, and the files that odd words name."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minigpt.config import load
from tests.fuzz.lines import lay_out
from tests.fuzz.trial import ended, in_folder
from tests.training.tiny_run import Workshop


@contextmanager
def bench(folder: Path) -> Iterator[Workshop]:
    """The current folder for as long as the block runs; nothing is written outside of it."""
    workshop = Workshop.set_up(folder)
    settings = json.loads((folder / "tiny.yaml").read_text(encoding="utf-8"))
    settings["training"]["max_steps"] = 2
    (folder / "tiny.yaml").write_text(json.dumps(settings), encoding="utf-8")
    lay_out(folder)
    own = {
        "HOME": str(folder / "empty_folder"),
        "MINIGPT_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    patience, load.PATIENCE_SECONDS = load.PATIENCE_SECONDS, 0.2
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        with in_folder(folder):
            first = ended(["train", "--config", "tiny.yaml", "--run-dir", "run"])
            assert first.code == 0, first
            yield workshop
    finally:
        (folder / "locked").chmod(0o700)
        load.PATIENCE_SECONDS = patience
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
