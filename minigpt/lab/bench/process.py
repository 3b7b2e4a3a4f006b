"""The parent's side: a contender's process, told to make its steps."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from minigpt.errors import MiniGPTError
from minigpt.lab.bench.contenders import Contender
from minigpt.lab.bench.shapes import Terms

CHILD = Path(__file__).with_name("child.py")
TREE = CHILD.parents[3]


class ContenderError(MiniGPTError):
    """A contender that cannot take part, or left the match."""


@dataclass(frozen=True)
class Turn:
    """What a contender came to in its turn."""

    steps: int
    seconds: float
    values: tuple[float, ...]
    """The losses of the steps since the turn before; of the ceiling, FLOP/s."""
    since_start_seconds: float
    peak_bytes: int | None


class Contestant:
    """A contender's process, from its start to its end; a context manager."""

    def __init__(
        self, contender: Contender, terms: Terms, folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.contender = contender
        self.facts: dict[str, Any] = {}
        self.environment = dict(environment)
        folder.mkdir(parents=True)
        self._log = folder / "stderr.txt"
        order = {
            "name": contender.name,
            "overrides": list(contender.overrides),
            "terms": terms.to_json(),
            "folder": str(folder),
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(CHILD), json.dumps(order)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env={**os.environ, **environment, "PYTHONPATH": _path_of(contender)},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def start(self) -> None:
        """Wait until it stands at its first step; its `facts` are known then."""
        self.facts = self._answer()["ready"]

    def turn(self, steps: int, warm: int) -> Turn:
        """Have it make `steps` steps after `warm` that are not timed.

        Raises:
            ContenderError: it crashed, or was killed.
        """
        try:
            pipe = self._pipe(self._process.stdin)
            pipe.write(json.dumps({"steps": steps, "warm": warm}) + "\n")
            pipe.flush()
        except BrokenPipeError:
            pass  # _answer says why
        answer = self._answer()
        return Turn(
            steps,
            answer["seconds"],
            tuple(answer["values"]),
            answer["since_start_seconds"],
            answer["peak_bytes"],
        )

    def _answer(self) -> dict[str, Any]:
        line = self._pipe(self._process.stdout).readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise ContenderError(f"the contender {self.contender.spec} left the match: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        ended = f"killed by signal {-code} (out of memory?)" if code < 0 else f"exit code {code}"
        return f"{ended}{': ' + lines[-1][:300] if lines else ''}"

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


def _path_of(contender: Contender) -> str:
    """PYTHONPATH with the contender's own tree before whatever the user has there."""
    own = str(contender.tree or TREE)
    return os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")])])
