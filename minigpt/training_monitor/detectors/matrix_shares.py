"""Each matrix's usual share of the gradient norm, to notice one that loses nearly all of it at once."""

from math import exp, isfinite, log
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.detectors.absence import kind
from minigpt.training_monitor.detectors.matrix_ratios import matrices
from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals

EVERY = 4
"""Steps between looks at single matrices: their layers are looked at every step."""
FOLLOW_EVERY = 3
"""Looks between those that the normals follow, once they are known."""
NO_FLOOR = (0.0, 0.0)
LOOKS = 6
"""Looks before a matrix has a normal share."""
YOUNG = 48
"""Steps from the start, or from the end of warm-up, in which matrices find their places."""
HOLDS = 2
"""Looks in a row that a share must be too low."""
SMOOTHING = 0.25
LEAST_SHARE = 1e-3
"""Of the norm, that a matrix must usually have: what had nothing has nothing to lose."""
NOISE, CALMS = 3.0, 0.9
"""Times the largest lately of a matrix's own changes (log space) that a fall must exceed, and how that is forgotten:
what attention learns, query and key, comes and goes by factors of a hundred in small runs."""
ALIKE = 0.5
"""Its like in the other layers and the rest of its module have fallen by less than this share of its own fall (log
space)."""


class MatrixShares:
    """A matrix is lost when its share and its norm fall at once far below what they were.

    A slow fall is not judged: a layer's share is, against an anchor, and single matrices do drift. Nor is an exact
    zero, which is a rule of its own. Nor are several matrices of one module: query and key fall together where
    attention evens out, a whole branch where the rest of the stream drowns it.
    """

    def __init__(self, share_ratio: float, fall_ratio: float, warmup_steps: int) -> None:
        self._share_ratio = share_ratio
        self._fall_ratio = fall_ratio
        self._warmup_steps = warmup_steps
        self._facts: ParameterFacts | None = None
        self._matrices: list[tuple[int, str]] = []
        self.clear()

    def clear(self) -> None:
        """All is learnt anew."""
        self._calls = self._looks = self._young_until = 0
        self._normals: dict[str, tuple[float, float, float]] = {}  # log share, log norm, noise of the share
        self._floors: dict[str, tuple[float, float]] = {}
        self._low: dict[str, int] = {}

    def lost(self, parameters: ParameterSignals, total: float, step: int) -> list[str]:
        """Names of the matrices that are lost now, in model order."""
        self._young_until = self._young_until or max(step, self._warmup_steps) + YOUNG
        self._calls += 1
        if self._calls % EVERY == 0:
            self._look(parameters, total)
        if not self._low or step < self._young_until:
            return []
        return [name for name, looks in self._low.items() if looks >= HOLDS]

    def _look(self, parameters: ParameterSignals, total: float) -> None:
        if parameters.facts is not self._facts:
            self._facts, self._matrices = parameters.facts, matrices(parameters.facts)
        self._looks += 1
        norms, floors = parameters.grad_norms, self._floors
        low = {}
        for index, name in self._matrices:
            norm, floor = norms[index], floors.get(name, NO_FLOOR)
            if norm and norm < floor[0] and norm < floor[1] * total:
                low[name] = self._low.get(name, 0) + 1
        if self._looks <= LOOKS or self._looks % FOLLOW_EVERY == 0:
            level = log(total)
            for index, name in self._matrices:
                norm = norms[index]
                if norm and isfinite(norm) and name not in low:
                    self._follow(name, log(norm), level)
        # Nearly always there is nothing more to do.
        self._low = (
            {k: n for k, n in low.items() if not self._with_others(k, parameters, total)} if low else low
        )

    def _with_others(self, name: str, parameters: ParameterSignals, total: float) -> bool:
        """Whether the same matrix of the other layers fell too, or another one of its module: then it is no story of
        one matrix."""
        falls, level = {}, log(total)
        for index, other in self._matrices:
            norm = parameters.grad_norms[index]
            if norm and isfinite(norm) and other in self._normals:
                falls[other] = self._normals[other][0] - (log(norm) - level)
        enough = ALIKE * falls.pop(name, 0.0)
        alike = [fall for other, fall in falls.items() if kind(other) == kind(name)]
        if alike and median(alike) > enough:
            return True
        return any(fall > enough for other, fall in falls.items() if _module(other) == _module(name))

    def _follow(self, name: str, norm: float, total: float) -> None:
        share = norm - total
        usual, level, noise = self._normals.get(name, (share, norm, 0.0))
        noise = max(CALMS * noise, abs(share - usual))
        usual += SMOOTHING * (share - usual)
        level += SMOOTHING * (norm - level)
        self._normals[name] = (usual, level, noise)
        self._floors.pop(name, None)
        if self._looks >= LOOKS and usual > log(LEAST_SHARE):
            least = min(log(self._share_ratio), -NOISE * noise)
            self._floors[name] = (self._fall_ratio * exp(level), exp(max(usual + least, -700.0)))

    def normal(self, name: str) -> float:
        """The share that a matrix used to have."""
        return exp(self._normals[name][0])

    def state_dict(self) -> dict[str, Any]:
        return {
            "calls": self._calls,
            "looks": self._looks,
            "young_until": self._young_until,
            "normals": {name: list(normal) for name, normal in self._normals.items()},
            "floors": {name: list(floor) for name, floor in self._floors.items()},
            "low": dict(self._low),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._calls, self._looks, self._young_until = state["calls"], state["looks"], state["young_until"]
        self._normals = {
            name: (share, norm, noise) for name, (share, norm, noise) in state["normals"].items()
        }
        self._floors = {name: (norm, share) for name, (norm, share) in state["floors"].items()}
        self._low = dict(state["low"])


def _module(name: str) -> str:
    """`blocks.1.attention.query.weight` -> `blocks.1.attention`."""
    return ".".join(name.split(".")[:-2])
