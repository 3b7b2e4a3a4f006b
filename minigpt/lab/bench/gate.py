"""The child's side of the match: a contender's loop waits at the gate before each step until it is its turn."""

import json
import time
from dataclasses import asdict, dataclass
from typing import IO, Any

import torch
from torch import Tensor

from minigpt.lab.bench.memory import peak_bytes


class Stopped(BaseException):
    """The parent wants no more steps."""


@dataclass(frozen=True)
class Facts:
    """What a contender is."""

    parameters: int
    flops_per_token: int
    vocab_size: int
    """Of the logits: the first loss is near its logarithm."""
    note: str = ""
    peak_flops: float | None = None
    """Of the device, by its data sheet (what MFU is measured against); only the ceiling says it, where it is known."""


class Gate:
    """Lets a training loop make as many steps as the parent asks for, and times them.

    A turn is timed from gate to gate, so everything that the loop does for a step is in it. On CUDA the device is
    waited for at both ends of a turn and not in between.
    """

    def __init__(self, commands: IO[str], answers: IO[str], device: torch.device, began_at: float) -> None:
        """`began_at`: when the contender's program did, on time.perf_counter's clock."""
        self._commands, self._answers, self._device = commands, answers, device
        self._began_at = began_at
        self._facts: Facts | None = None
        self._values: list[Tensor | float] = []
        self._told = 0
        self._left_warm, self._left, self._steps = 0, 0, 0
        self._turn_began_at = 0.0

    def built(self, facts: Facts) -> None:
        """What is about to be trained."""
        self._facts = facts

    def record(self, value: Tensor | float) -> None:
        """What a step came to: its mean loss. A tensor is read when the turn is over, so that no step waits for it."""
        self._values.append(value.detach() if isinstance(value, Tensor) else value)

    def next_step(self) -> None:
        """Before each step: returns when it may be made.

        Raises:
            Stopped: there are to be no more.
        """
        if self._left_warm > 0:
            self._left_warm -= 1
            if self._left_warm == 0:
                self._turn_began_at = self._now()
            return
        if self._left > 0:
            self._left -= 1
            return
        if self._steps:
            self._answer_turn()
        else:
            assert self._facts is not None, "a contender says what it is before its first step"
            self._say({"ready": {**asdict(self._facts), "threads": torch.get_num_threads()}})
        self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        line = self._commands.readline()
        command = json.loads(line) if line.strip() else {"stop": True}
        if "stop" in command:
            raise Stopped
        self._steps = int(command["steps"])
        # The step that is let through by returning is already counted.
        self._left_warm, self._left = int(command["warm"]), self._steps - 1
        self._turn_began_at = self._now()

    def _answer_turn(self) -> None:
        now = self._now()
        self._say(
            {
                "seconds": now - self._turn_began_at,
                "since_start_seconds": now - self._began_at,
                "values": [float(value) for value in self._values[self._told :]],
                "peak_bytes": peak_bytes(self._device),
            }
        )
        self._told = len(self._values)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _say(self, answer: dict[str, Any]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()
