"""Which matrix alone is updated far faster than it used to be, or than its like in the other layers."""

from collections.abc import Sequence
from math import exp, isfinite, log
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.detectors.matrix_ratios import matrices
from minigpt.training_monitor.detectors.siblings import families, odd_ones
from minigpt.training_monitor.finding import Evidence
from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals
from minigpt.training_monitor.signals import StepSignals

EVERY = 12
"""Steps between looks: a matrix with a rate of its own keeps it, and looking at each of them costs."""
LOOKS = 4
"""Looks before a matrix has a normal."""
SMOOTHING = 0.3
ADOPTING = 0.03
"""The same for a matrix that is too fast: what was told and goes on is its normal in the end."""
FAMILIES_EVERY = 4
"""Looks between comparisons with the other layers: what usually is changes slowly."""
NOISE = 6.0
"""Mean absolute deviations of a matrix's own ratio that a rise must exceed: attention of a small SGD run comes and goes
by factors."""
HOLDS = 0.8
"""From one look to the next, updates above this fraction stay: the echo of one large gradient in momentum of .9 is at
.43 by then."""
HARMLESS = 0.01
"""Ratio that matrices of healthy runs have: none is too fast below it."""
NONE = float("-inf")

Row = list[float]


class MatrixPace:
    """Looks at update / weight of each matrix, in logs, and at its gradient, which may explain a rise.

    Of its own normal a matrix leaps when the middle matrix does not. Against its like in other layers its update itself
    must stand out (the ratio comes down as its weights grow), and also its update per gradient, or larger gradients
    (SGD) or smaller ones (Adam) would explain it.
    """

    def __init__(self, alone: float) -> None:
        self._alone = log(alone)
        self.fast = ""
        """The matrix that is too fast now; "" for none."""
        self.evidence: Evidence = {}
        """What it was compared with."""
        self._facts: ParameterFacts | None = None
        self._matrices: list[tuple[int, str]] = []
        self._families: list[list[int]] = []
        self.forget()

    def forget(self) -> None:
        """All is learnt anew."""
        self.fast = ""
        self._looks = 0
        self._ratios: Row = []
        self._noise: Row = []
        self._moves: Row = []
        self._grads: Row = []
        self._apart: dict[int, float] = {}
        self._suspects: dict[str, float] = {}

    def too_fast(self, signals: StepSignals) -> str:
        """The matrix that has been too fast for two looks; "" for none."""
        parameters = signals.parameters
        if signals.step % EVERY or parameters is None:
            return self.fast
        if parameters.update_norms is None or parameters.weight_norms is None:
            return self.fast
        self._follow(parameters.facts)
        ratios, grads, moves = self._measure(parameters)
        suspects = self._suspicious(ratios, grads) if self._looks >= LOOKS else {}
        before, self._suspects = self._suspects, {name: ratios[at] for name, (at, _) in suspects.items()}
        held = [
            name for name in suspects if self._suspects[name] > before.get(name, float("inf")) + log(HOLDS)
        ]
        self.fast = max(held, key=self._suspects.__getitem__, default="")
        if self.fast:
            at, normal = suspects[self.fast]
            self.evidence = {"trigger": "alone", "normal": exp(normal), "ratio": exp(ratios[at] - normal)}
        self._learn(ratios, grads, moves, {at for at, _ in suspects.values()})
        return self.fast

    def _follow(self, facts: ParameterFacts) -> None:
        if facts is self._facts:
            return
        if self._facts is None or facts.names != self._facts.names:
            if self._facts is not None:
                self.forget()
            self._matrices = matrices(facts)
            places = {index: place for place, (index, _) in enumerate(self._matrices)}
            self._families = [
                [places[index] for index in members]
                for members in families(facts, self._matrices)
                if len(members) > 2
            ]
        self._facts = facts

    def _measure(self, parameters: ParameterSignals) -> tuple[Row, Row, Row]:
        """Logs of each matrix's update / weight, of its gradient and of its update; -inf where one is zero or
        unknown."""
        updates, weights, gradients = parameters.update_norms, parameters.weight_norms, parameters.grad_norms
        assert updates is not None
        assert weights is not None
        ratios, grads, moves = [], [], []
        for index, _ in self._matrices:
            update, weight, gradient = updates[index], weights[index], gradients[index]
            moves.append(log(update) if update > 0.0 and isfinite(update) else NONE)
            ratios.append(moves[-1] - log(weight) if weight > 0.0 and isfinite(weight) else NONE)
            grads.append(log(gradient) if gradient and gradient > 0.0 and isfinite(gradient) else NONE)
        return ratios, grads, moves

    def _changes(self, ratios: Row) -> Row:
        """How far each matrix is from its normal, beyond the middle one: rates and warm-up move all of them."""
        rows = zip(ratios, self._ratios, strict=True)
        changes = [now - usual if now > NONE < usual else 0.0 for now, usual in rows]
        middle = median(changes) if changes else 0.0
        return [change - middle for change in changes]

    def _suspicious(self, ratios: Row, grads: Row) -> dict[str, tuple[int, float]]:
        """Matrices that are too fast at this look: their place, and the log of what is normal."""
        found: dict[str, tuple[int, float]] = {}
        for place, alone in enumerate(self._changes(ratios)):
            if alone <= self._alone or ratios[place] < log(HARMLESS) or grads[place] == NONE:
                continue
            explained = max(0.0, grads[place] - self._grads[place]) if self._grads[place] > NONE else alone
            if alone - explained > max(self._alone, NOISE * self._noise[place]):
                found[self._matrices[place][1]] = (place, self._ratios[place])
        if self._looks % FAMILIES_EVERY == 0:
            self._apart = self._apart_from_their_like()
        for place, above in self._apart.items():
            if ratios[place] >= log(HARMLESS):
                found.setdefault(self._matrices[place][1], (place, ratios[place] - above))
        return found

    def _apart_from_their_like(self) -> dict[int, float]:
        """Places of the matrices that stand out of their family, and by how much."""
        apart = {}
        for members in self._families:
            odd = self._odd(members)
            if odd is not None:
                others = [self._moves[other] for other in members if other != odd]
                apart[odd] = self._moves[odd] - median(others)
        return apart

    def _odd(self, members: Sequence[int]) -> int | None:
        """The one matrix of a family that is usually updated far more than its like, and more for its gradient."""
        usual = [self._moves[place] for place in members]
        if NONE in usual or any(self._grads[place] == NONE for place in members):
            return None
        odd, gap = odd_ones(usual, self._alone)
        if len(odd) != 1 or gap < 0:
            return None
        paces = [self._moves[place] - self._grads[place] for place in members]
        also, gap = odd_ones(paces, self._alone)
        return members[odd[0]] if also == odd and gap > 0 else None

    def _learn(self, ratios: Row, grads: Row, moves: Row, suspects: set[int]) -> None:
        self._looks += 1
        if len(self._ratios) != len(ratios):
            self._ratios, self._grads, self._moves = list(ratios), list(grads), list(moves)
            self._noise = [0.0] * len(ratios)
            return
        changes = self._changes(ratios)
        for place, (ratio, grad) in enumerate(zip(ratios, grads, strict=True)):
            if ratio == NONE or grad == NONE:
                continue
            if self._ratios[place] == NONE or self._grads[place] == NONE:
                self._ratios[place], self._grads[place], self._moves[place] = ratio, grad, moves[place]
                continue
            off = ratio - self._ratios[place]
            if place in suspects:
                self._ratios[place] += ADOPTING * off
                continue
            self._ratios[place] += SMOOTHING * off
            self._moves[place] += SMOOTHING * (moves[place] - self._moves[place])
            self._grads[place] += SMOOTHING * (grad - self._grads[place])
            self._noise[place] += SMOOTHING * (abs(changes[place]) - self._noise[place])

    def state_dict(self) -> dict[str, Any]:
        return {
            "fast": self.fast,
            "evidence": dict(self.evidence),
            "looks": self._looks,
            "ratios": list(self._ratios),
            "noise": list(self._noise),
            "moves": list(self._moves),
            "grads": list(self._grads),
            "apart": [list(entry) for entry in self._apart.items()],
            "suspects": dict(self._suspects),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fast, self.evidence = state["fast"], dict(state["evidence"])
        self._looks, self._suspects = state["looks"], dict(state["suspects"])
        self._apart = {int(place): above for place, above in state["apart"]}
        self._ratios, self._noise = list(state["ratios"]), list(state["noise"])
        self._moves, self._grads = list(state["moves"]), list(state["grads"])
