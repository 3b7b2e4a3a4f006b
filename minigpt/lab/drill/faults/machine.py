"""A machine that gets slower, a process that gets fatter."""

from dataclasses import dataclass

import torch

from minigpt.lab.drill.scenario import Fault
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.training import Training


@dataclass(frozen=True, kw_only=True)
class SlowMachine(Fault):
    """Every step takes `seconds` longer: a neighbour on the machine, a cold data store."""

    seconds: float = 0.06

    def before_step(self, training: Training) -> None:
        if self.active(training):
            training.pause(self.seconds)


@dataclass(frozen=True, kw_only=True)
class MemoryLeak(Fault):
    """Something keeps a tensor of each step, as a list of losses with their graphs would."""

    megabytes: int = 1

    def after_update(self, training: Training) -> None:
        if self.active(training):
            training.notes.setdefault("kept", []).append(torch.ones(self.megabytes * 2**18))


FAULTS: list[Fault] = [
    SlowMachine(name="slow_machine", event_is_enough=True, labels=("throughput_drop", "machine_slower")),
    MemoryLeak(
        name="memory_leak",
        setting=Setting(steps=480),
        alone=True,
        event_is_enough=True,
        slow=True,
        labels=("memory_growth", "memory_leak"),
    ),
]
