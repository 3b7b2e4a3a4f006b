"""Update / weight ratios of a model's matrices, and which of them is too high by any measure."""

import re
from collections.abc import Sequence
from math import inf, sqrt
from typing import Any

from minigpt.training_monitor.parameter_signals import ParameterFacts
from minigpt.training_monitor.signals import StepSignals

ZERO_RMS = 1e-4
"""Weights that start smaller (zero-initialised outputs) are judged once their ratio has come down."""
EMBEDDINGS = re.compile(r"embed|wte|wpe|tok|lm_head|(^|[._])(pos|emb)(?![a-z])")
SMALLEST = 64
"""Elements; fewer are written anew within a few healthy steps."""
EMBEDDING_LEEWAY = 1.4
"""Times the limit that an embedding's ratio must be: it moves more than a matrix, being small at first."""
ECHO = 0.93
"""Updates that shrink by this factor a step or faster are what momentum (.9) makes of one large gradient: over by
itself. A rate too high keeps them as they are, however fast the weights grow under them."""


class MatrixRatios:
    """Embeddings (rare tokens) and vectors (gains, biases) are left out of the ratios."""

    def __init__(self, persist_steps: int) -> None:
        self._persist_steps = persist_steps
        self._facts: ParameterFacts | None = None
        self._matrices: list[tuple[int, str]] = []
        self._started: dict[str, bool] = {}  # whether a matrix may be judged by the absolute threshold
        self._all_started = False
        self._excess: dict[str, tuple[int, float, int, float]] = {}
        """Matrix -> since when its ratio is too high, its largest update since, when that was, its ratio at first."""
        self._updates: Sequence[float] = ()
        self._index: dict[str, int] = {}
        self._embedding_high = 0

    @property
    def excess(self) -> int:
        """How many matrices are too high now."""
        return len(self._excess)

    def first_excess(self, name: str) -> float:
        """The ratio with which a matrix that is too high began to be."""
        return self._excess[name][3] if name in self._excess else 0.0

    def of(self, signals: StepSignals) -> dict[str, float]:
        """Update / weight ratio of every matrix; of the layer groups where no parameters are known."""
        parameters = signals.parameters
        if parameters is None or parameters.update_norms is None or parameters.weight_norms is None:
            self._updates = ()
            groups = {name: ratio for name, ratio in signals.update_ratios.items() if not _is_embedding(name)}
            if not groups.keys() <= self._started.keys():
                self._started |= {group: False for group in groups if group not in self._started}
                self._all_started = False
            return groups
        weights, updates = parameters.weight_norms, parameters.update_norms
        if parameters.facts is not self._facts:
            self._facts, self._matrices = parameters.facts, matrices(parameters.facts)
            self._index = {name: index for index, name in self._matrices}
            for index, name in self._matrices:
                trained = weights[index] > ZERO_RMS * sqrt(parameters.facts.sizes[index])
                self._started.setdefault(name, trained)
            self._all_started = all(self._started.values())
        self._updates = updates
        return {name: updates[i] / weight for i, name in self._matrices if (weight := weights[i]) > 0}

    def too_high(self, step: int, ratios: dict[str, float], limit: float, *, early: bool) -> str:
        """The matrix whose ratio has been too high for persist_steps; the one furthest above; "" for none.

        `early`: the first updates, which Adam makes as large as momentum lets them be, shrink as an echo does.
        """
        if self._all_started and not self._excess and max(ratios.values()) <= limit:
            return ""  # nearly always
        lasting = ""
        for name, ratio in ratios.items():
            if ratio <= limit:
                self._started[name] = True
                self._excess.pop(name, None)
            elif self._started.get(name):
                update = self._updates[self._index[name]] if self._updates else 0.0
                since, peak, peak_at, began = self._excess.get(name, (step, update, step, ratio))
                if update >= peak:
                    peak, peak_at = update, step
                self._excess[name] = (since, peak, peak_at, began)
                echo = not early and peak_at < step and 0.0 < update <= peak * ECHO ** (step - peak_at)
                lasts = step - since + 1 >= self._persist_steps and not echo
                if lasts and ratio > ratios.get(lasting, 0.0):
                    lasting = name
        self._all_started = all(self._started.values())
        return lasting

    def embedding_too_high(self, signals: StepSignals, limit: float) -> str:
        """The embedding (as a layer group) that has been written anew for persist_steps; "" for none."""
        if (
            not self._embedding_high
            and max(signals.update_ratios.values(), default=0.0) <= EMBEDDING_LEEWAY * limit
        ):
            return ""  # nearly always
        found = ""
        for group, ratio in signals.update_ratios.items():
            if EMBEDDING_LEEWAY * limit < ratio < inf and _is_embedding(group):
                found = group
        self._embedding_high = self._embedding_high + 1 if found else 0
        return found if self._embedding_high >= self._persist_steps else ""

    def state_dict(self) -> dict[str, Any]:
        return {
            "started": dict(self._started),
            "excess": {name: list(began) for name, began in self._excess.items()},
            "embedding_high": self._embedding_high,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._started, self._all_started = dict(state["started"]), False
        self._excess = {
            name: (since, peak, peak_at, began)
            for name, (since, peak, peak_at, began) in state["excess"].items()
        }
        self._embedding_high = state["embedding_high"]


def _is_embedding(name: str) -> bool:
    return EMBEDDINGS.search(name.lower()) is not None


def matrices(facts: ParameterFacts) -> list[tuple[int, str]]:
    """Index and name of the parameters large enough to be matrices, without embeddings and heads."""
    smallest = max(SMALLEST, 4 * sqrt(max(facts.sizes, default=0)))
    return [
        (index, name)
        for index, (name, size) in enumerate(zip(facts.names, facts.sizes, strict=True))
        if size >= smallest and facts.trainable[index] and not _is_embedding(name)
    ]
