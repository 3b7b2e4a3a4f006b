"""What compiling costs a run and wins it: as measured here before, else a careful guess."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

import minigpt.model
from minigpt.atomic import write_text_atomically
from minigpt.data.blocks import read_whole
from minigpt.schema import Config, Float
from minigpt.training.environment import HARMLESS

Seconds = Annotated[Float, Field(gt=0)]

# Of a machine's first time, on 4 CPU cores (torch 2.13): 39 s with the 6 blocks of small, 69 s with medium's 16.
# A guess may be too high: then a run stays eager a little too long.
_FIRST_SECONDS, _FIRST_SECONDS_PER_BLOCK = 21.0, 3.0
# The first time's share that a repetition takes where only the first is known: 5.0 of 39 s, 10.2 of 69 s.
_AGAIN_SHARE = 0.15
# A compiled step's share of the eager one's time: .62 and .65 measured in bf16 on a quiet CPU, .80 on a busy one,
# .86 in fp32.
_STEP_SHARE, _STEP_SHARE_FP32 = 0.75, 0.9


class CompileCosts(Config):
    """What was measured of one shape on this machine."""

    first_seconds: Seconds
    """Of compiling, the first time: nothing of it was in torch's cache."""
    again_seconds: Seconds | None = None
    """The last time since."""
    eager_step_seconds: Seconds | None = None
    compiled_step_seconds: Seconds | None = None
    """Of the same run: known once one has gone on for a few steps after compiling."""

    @property
    def seconds(self) -> float:
        """What it will probably cost next time."""
        return self.first_seconds * _AGAIN_SHARE if self.again_seconds is None else self.again_seconds

    @property
    def step_share(self) -> float | None:
        """A compiled step's share of the eager one's time; None: not known."""
        if self.eager_step_seconds is None or self.compiled_step_seconds is None:
            return None
        return self.compiled_step_seconds / self.eager_step_seconds


@dataclass
class Pace:
    """What this process has measured of its steps: the fastest counts, since noise only ever adds."""

    eager_seconds: float | None = None
    compiled_seconds: float | None = None
    compiled_steps: int = 0


def cost_and_win(
    known: CompileCosts | None,
    eager_step_seconds: float,
    steps_left: int,
    *,
    num_layers: int,
    reduced_precision: bool,
) -> tuple[float, float]:
    """Seconds that compiling will cost, and seconds that it will save in the steps that are left."""
    share = _STEP_SHARE if reduced_precision else _STEP_SHARE_FP32
    if known is None:
        cost = _FIRST_SECONDS + _FIRST_SECONDS_PER_BLOCK * num_layers
    else:
        cost, share = known.seconds, share if known.step_share is None else known.step_share
    return cost, eager_step_seconds * (1 - share) * steps_left


class CostsFile:
    """Where the costs of one shape on this machine are kept: beside the compiled code, so that both go together."""

    def __init__(self, shape: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """`shape`: all that the compiled code depends on besides the machine and the model's own code."""
        folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        place = {name: value for name, value in environment.items() if name not in {*HARMLESS, "commit"}}
        self._path = None if folder is None else Path(folder) / "minigpt_costs" / _name(shape, place)

    def read(self) -> CompileCosts | None:
        """What was measured; None: nothing, or nothing that can be read, which is measured anew."""
        try:
            return None if self._path is None else CompileCosts.model_validate_json(read_whole(self._path))
        except (OSError, ValidationError):
            return None

    def add_compiling(self, seconds: float) -> None:
        """It was compiled, in so many seconds."""
        known = self.read()
        if known is None:
            self._write(CompileCosts(first_seconds=seconds))
        else:
            self._write(known.model_copy(update={"again_seconds": seconds}))

    def add_steps(self, eager_seconds: float, compiled_seconds: float) -> None:
        """A run's steps took so long before and after."""
        if (known := self.read()) is not None:
            steps = {"eager_step_seconds": eager_seconds, "compiled_step_seconds": compiled_seconds}
            self._write(known.model_copy(update=steps))

    def _write(self, costs: CompileCosts) -> None:
        """A disk that refuses leaves the next run to its guess."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_text_atomically(self._path, costs.model_dump_json(indent=2))


def _name(shape: Mapping[str, Any], place: Mapping[str, str]) -> str:
    described = json.dumps([shape, place, _code_sha256()], sort_keys=True)
    return f"{hashlib.sha256(described.encode()).hexdigest()[:32]}.json"


def _code_sha256() -> str:
    """Of the model's code, as far as it can be read: torch has nothing in its cache of another version."""
    digest = hashlib.sha256()
    with contextlib.suppress(OSError):
        for path in sorted(Path(minigpt.model.__path__[0]).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
