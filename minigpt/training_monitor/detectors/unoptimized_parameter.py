"""unoptimized_parameter: a parameter trains on paper (it gets gradients) but is in no optimizer."""

from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.absence import named
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class UnoptimizedParameterConfig:
    """When a parameter outside every optimizer is called unoptimized_parameter."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    persist_steps: int = 2
    """Steps in a row: the second can also see that the parameter does not move (no unknown optimizer has it)."""
    max_fraction: float = 0.5
    """More than this share of the parameters, and of their elements, left out from the start is a choice (only a
    head or an adapter trains), not a slip."""
    close_steps: int = 1
    """Steps with everything in an optimizer that end a sustained finding."""

    def __post_init__(self) -> None:
        rule = "unoptimized_parameter"
        require(self.persist_steps >= 1, f"{rule}.persist_steps", self.persist_steps, ">= 1")
        require(0 < self.max_fraction <= 1, f"{rule}.max_fraction", self.max_fraction, "above 0, at most 1")
        require(self.close_steps >= 1, f"{rule}.close_steps", self.close_steps, ">= 1")


class UnoptimizedParameter:
    """All parameters that get gradients are in some optimizer: exact, from the first step.

    Silent: copies and heads without gradients, most of the model left out from the start, and what moves all the
    same (an optimizer that the monitor was not told of).
    """

    def __init__(self, config: UnoptimizedParameterConfig) -> None:
        self._config = config
        self._incident = Incident("unoptimized_parameter")
        self._was_optimized: set[str] = set()
        self._accepted: set[str] = set()
        self._moves: set[str] = set()
        self._left_out: list[str] = []
        self._facts: ParameterFacts | None = None

    def observe(self, signals: StepSignals) -> list[Finding]:
        parameters = signals.parameters
        if parameters is None or parameters.facts.optimized is None:
            return []
        if parameters.facts is not self._facts:
            self._take(parameters.facts)
        self._left_out = self._outside(parameters) if not parameters.facts.all_optimized else []
        if not self._left_out:
            return self._incident.good(signals.step, self._config.close_steps, {})
        if self._is_a_choice(parameters):
            return []
        evidence = named(parameters.facts, set(self._left_out))
        findings = self._incident.bad(signals.step, evidence)
        if self._incident.bad_count >= self._config.persist_steps:
            findings += self._incident.sustain(signals.step, evidence)
        return findings

    def _take(self, facts: ParameterFacts) -> None:
        assert facts.optimized is not None
        self._facts = facts
        optimized = zip(facts.names, facts.optimized, strict=True)
        self._was_optimized.update(name for name, inside in optimized if inside)

    def _outside(self, parameters: ParameterSignals) -> list[str]:
        """Trainable parameters with a gradient that no optimizer has and that do not move."""
        facts = parameters.facts
        assert facts.optimized is not None
        found = []
        for i, name in enumerate(facts.names):
            if facts.optimized[i] or not facts.trainable[i]:
                continue
            # The first update seen may date from when an optimizer still had it.
            moved = parameters.update_norms is not None and parameters.update_norms[i] > 0.0
            if moved and name in self._left_out:
                self._moves.add(name)
            gets_gradient = parameters.grad_norms[i] is not None
            if gets_gradient and name not in self._moves and name not in self._accepted:
                found.append(name)
        return found

    def _is_a_choice(self, parameters: ParameterSignals) -> bool:
        facts, out = parameters.facts, set(self._left_out)
        if out & self._was_optimized:
            return False
        trains = [i for i in range(len(facts)) if parameters.grad_norms[i] is not None and facts.trainable[i]]
        outside = [i for i in trains if facts.names[i] in out]
        most = len(outside) > self._config.max_fraction * len(trains)
        elements = sum(facts.sizes[i] for i in trains)
        return most and sum(facts.sizes[i] for i in outside) > self._config.max_fraction * elements

    def rebase(self) -> None:
        """What is in no optimizer now is meant to be in none."""
        self._accepted |= set(self._left_out)

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "was_optimized": sorted(self._was_optimized),
            "accepted": sorted(self._accepted),
            "moves": sorted(self._moves),
            "left_out": list(self._left_out),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._was_optimized = set(state["was_optimized"])
        self._accepted = set(state["accepted"])
        self._moves = set(state["moves"])
        self._left_out = list(state["left_out"])
        self._facts = None
