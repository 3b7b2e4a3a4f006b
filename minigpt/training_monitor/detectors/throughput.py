"""throughput_drop and memory_growth: the machine, not the model."""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any, ClassVar

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class ThroughputConfig:
    """When a slower machine is called throughput_drop."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 50
    """The first step at which this rule may speak: compilation and warm caches come first."""
    min_ratio: float = 0.5
    """Tokens per second below this fraction of the usual count as slow."""
    persist_steps: int = 20
    """Slow steps in a row; an evaluation or a save is one."""
    interrupt_seconds: float = 120.0
    """A drop that has lasted this long interrupts; a shorter one is only noted."""
    close_steps: int = 16
    """Normal steps in a row that end the finding."""
    readmit_steps: int = 1000
    """Slow steps after which the speed is the usual one."""

    def __post_init__(self) -> None:
        name = "throughput_drop"
        require(self.first_step >= 0, f"{name}.first_step", self.first_step, ">= 0")
        require(0 < self.min_ratio < 1, f"{name}.min_ratio", self.min_ratio, "between 0 and 1")
        require(self.persist_steps >= 2, f"{name}.persist_steps", self.persist_steps, ">= 2")
        require(self.interrupt_seconds >= 0, f"{name}.interrupt_seconds", self.interrupt_seconds, ">= 0")
        require(self.close_steps >= 1, f"{name}.close_steps", self.close_steps, ">= 1")
        require(
            self.readmit_steps > self.persist_steps,
            f"{name}.readmit_steps",
            self.readmit_steps,
            "> persist_steps",
        )


@dataclass(frozen=True, kw_only=True)
class MemoryGrowthConfig:
    """When growing memory is called memory_growth: an event. Peaks only ever rise, so one rise means nothing."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 100
    """Memory is compared from this step on: buffers and optimizer state are there by then."""
    every_steps: int = 20
    """Steps between two looks."""
    looks: int = 12
    """Looks in a row, each above the one before, that make a growth steady."""
    min_growth: float = 0.2
    """And by this fraction in all."""
    fast_growth: float = 0.5
    """By this fraction, five looks in a row are enough."""
    interrupts: bool = False
    """Whether it interrupts, instead of only being noted."""

    def __post_init__(self) -> None:
        name = "memory_growth"
        require(self.first_step >= 0, f"{name}.first_step", self.first_step, ">= 0")
        require(self.every_steps >= 1, f"{name}.every_steps", self.every_steps, ">= 1")
        require(self.looks >= 5, f"{name}.looks", self.looks, ">= 5")
        require(self.min_growth > 0, f"{name}.min_growth", self.min_growth, "> 0")
        require(self.fast_growth > 0, f"{name}.fast_growth", self.fast_growth, "> 0")


FAST_LOOKS = 5
HISTORY = 64
MIN_HISTORY = 16
EVERY = 8
"""The usual speed is taken anew after so many steps."""


class ThroughputDrop:
    """Tokens per second against their own median; single slow steps are evaluations, saves and compilations."""

    def __init__(self, config: ThroughputConfig) -> None:
        self._config = config
        self._incident = Incident("throughput_drop")
        self._history: deque[float] = deque(maxlen=HISTORY)
        self._usual: float | None = None
        self._since_usual = 0
        self._slow_steps = 0
        self._slow_seconds = 0.0

    def observe(self, signals: StepSignals) -> list[Finding]:
        speed = signals.tokens_per_second
        if not (isfinite(speed) and speed > 0) or signals.step < self._config.first_step // 2:
            return []
        if self._usual is None or speed >= self._config.min_ratio * self._usual:
            return self._normal(signals.step, speed)
        self._slow_steps += 1
        self._slow_seconds += max(signals.seconds, 0.0)
        if self._slow_steps < self._config.persist_steps or signals.step < self._config.first_step:
            return []
        if self._slow_steps >= self._config.readmit_steps:
            self._history.clear()
            self._usual = None
            return self._incident.close(signals.step, {"value": speed, "new_normal": True})
        evidence = {
            "value": speed,
            "normal": self._usual,
            "ratio": speed / self._usual,
            "count": self._slow_steps,
        }
        findings = self._incident.bad(signals.step, evidence)
        if self._slow_seconds >= self._config.interrupt_seconds:
            findings += self._incident.sustain(signals.step, evidence)
        return findings

    def _normal(self, step: int, speed: float) -> list[Finding]:
        self._slow_steps, self._slow_seconds = 0, 0.0
        self._history.append(speed)
        self._since_usual += 1
        if len(self._history) >= MIN_HISTORY and (self._usual is None or self._since_usual >= EVERY):
            self._usual, self._since_usual = median(self._history), 0
        return self._incident.good(
            step, self._config.close_steps, {"value": speed, "normal": self._usual or speed}
        )

    def rebase(self) -> None:
        self._history.clear()
        self._usual = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "history": list(self._history),
            "usual": self._usual,
            "since_usual": self._since_usual,
            "slow_steps": self._slow_steps,
            "slow_seconds": self._slow_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._history = deque(state["history"], maxlen=HISTORY)
        self._usual = state["usual"]
        self._since_usual = state["since_usual"]
        self._slow_steps = state["slow_steps"]
        self._slow_seconds = state["slow_seconds"]


class MemoryGrowth:
    """Peak memory rising look after look by about the same: something is kept from step to step."""

    def __init__(self, config: MemoryGrowthConfig) -> None:
        self._config = config
        self._incident = Incident("memory_growth")
        self._looks: deque[tuple[int, float]] = deque(maxlen=config.looks)

    def observe(self, signals: StepSignals) -> list[Finding]:
        config, step = self._config, signals.step
        if not signals.memory_bytes or step < config.first_step:
            return []
        if self._looks and step - self._looks[-1][0] < config.every_steps:
            return []
        grows = bool(self._looks) and signals.memory_bytes > self._looks[-1][1]
        if not grows:
            self._looks.clear()
        self._looks.append((step, float(signals.memory_bytes)))
        if not grows:
            return self._incident.close(step, {"value": float(signals.memory_bytes)})
        values = [value for _, value in self._looks]
        growth = values[-1] / values[0] - 1
        slow = len(values) >= config.looks and growth >= config.min_growth
        fast = len(values) >= FAST_LOOKS and growth >= config.fast_growth
        if not (slow or fast) or not _steady(values):
            return []
        rate = (values[-1] - values[0]) / (step - self._looks[0][0])
        evidence = {
            "value": values[-1],
            "normal": values[0],
            "ratio": values[-1] / values[0],
            "bytes_per_step": rate,
        }
        evidence["since"] = self._looks[0][0]
        findings = self._incident.bad(step, evidence)
        return findings + self._incident.sustain(step, evidence, interrupts=config.interrupts)

    def rebase(self) -> None:
        self._looks.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"incident": self._incident.state_dict(), "looks": [list(look) for look in self._looks]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._looks = deque(((step, value) for step, value in state["looks"]), maxlen=self._config.looks)


def _steady(values: list[float]) -> bool:
    """Whether no single rise makes up more than half of all."""
    rises = [later - earlier for earlier, later in pairwise(values)]
    return max(rises) <= 0.5 * sum(rises)
