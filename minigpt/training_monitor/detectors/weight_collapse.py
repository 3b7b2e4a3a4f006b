"""weight_collapse: the weights shrink towards zero, faster than any gradient could mean it."""

from collections import deque
from dataclasses import dataclass
from math import exp, inf, log, sqrt
from typing import Any, ClassVar

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.parameter_signals import ParameterFacts
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class WeightCollapseConfig:
    """When shrinking weights are called weight_collapse."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 0
    """The first step at which this rule may interrupt; earlier it only notes events."""
    fall: float = 0.3
    """Fraction that the typical matrix (or layer group) lost of its norm within window_steps."""
    window_steps: int = 40
    """Steps over which the fall is judged."""
    close_steps: int = 16
    """Steps without further fall that end the finding."""

    def __post_init__(self) -> None:
        name = "weight_collapse"
        require(self.first_step >= 0, f"{name}.first_step", self.first_step, ">= 0")
        require(0 < self.fall < 1, f"{name}.fall", self.fall, "between 0 and 1")
        require(self.window_steps >= 8, f"{name}.window_steps", self.window_steps, ">= 8")
        require(self.close_steps >= 1, f"{name}.close_steps", self.close_steps, ">= 1")


EVERY = 4
"""Steps between two looks at the weights: they move slowly."""


class WeightCollapse:
    """The median over the matrices of how much norm each has lost: weight decay gone wild takes from all alike."""

    def __init__(self, config: WeightCollapseConfig, facts: RunFacts) -> None:
        self._config = config
        self._tolerated = -log(1 - config.fall)
        self._weight_decay = facts.weight_decay
        self._incident = Incident("weight_collapse")
        self._facts: ParameterFacts | None = None
        self._matrices: list[tuple[int, str]] = []
        self._looks: deque[tuple[int, dict[str, float]]] = deque()

    def observe(self, signals: StepSignals) -> list[Finding]:
        step = signals.step
        if self._looks and step - self._looks[-1][0] < EVERY:
            return []
        weights = self._logs(signals)
        if not weights:
            return []
        falls = self._falls(weights)
        self._looks.append((step, weights))
        while len(self._looks) > 2 and self._looks[0][0] < step - self._config.window_steps:
            self._looks.popleft()
        if not falls:
            return []
        typical = median(list(falls.values()))
        if typical <= self._tolerated and not self._incident.is_open:
            return []  # nearly always
        evidence: dict[str, float | int | str] = {
            "value": 1 - exp(-typical),
            "parameter": max(falls, key=falls.__getitem__),
            "of": len(falls),
            "lr": signals.lr,
            "since": self._looks[0][0],
        }
        if self._weight_decay is not None:
            evidence["weight_decay"] = self._weight_decay
        if typical <= self._tolerated:
            return self._incident.good(step, max(1, self._config.close_steps // EVERY), evidence)
        findings = self._incident.bad(step, evidence)
        # Twice in a row: a single jump of the weights is not this rule's.
        if self._incident.bad_count >= 2 and step >= self._config.first_step:
            findings += self._incident.sustain(step, evidence)
        return findings

    def _falls(self, weights: dict[str, float]) -> dict[str, float]:
        """Log of the norm each lost since the oldest look, of those that fell between the last two looks too."""
        if len(self._looks) < 2:
            return {}
        oldest, newest = self._looks[0][1], self._looks[-1][1]
        return {
            name: oldest[name] - value if value < newest[name] else 0.0
            for name, value in weights.items()
            if name in oldest and name in newest
        }

    def _logs(self, signals: StepSignals) -> dict[str, float]:
        """Log norm of every matrix, or of every layer group where no parameters are known."""
        parameters = signals.parameters
        if parameters is None or parameters.weight_norms is None:
            groups = signals.weight_norms.items()
            return {name: log(norm) for name, norm in groups if 0 < norm < inf}
        if parameters.facts is not self._facts:
            self._facts, self._matrices = parameters.facts, _matrices(parameters.facts)
        norms = parameters.weight_norms
        return {name: log(norm) for index, name in self._matrices if 0 < (norm := norms[index]) < inf}

    def rebase(self) -> None:
        self._looks.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "looks": [[step, dict(weights)] for step, weights in self._looks],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._looks = deque((step, dict(weights)) for step, weights in state["looks"])


def _matrices(facts: ParameterFacts) -> list[tuple[int, str]]:
    """Index and name of the parameters large enough to be matrices."""
    smallest = 4 * sqrt(max(facts.sizes, default=0))
    return [(index, facts.names[index]) for index, size in enumerate(facts.sizes) if size >= smallest]
