"""Each matrix's usual share of the gradient norm, to notice one that loses nearly all of it at once."""

from math import exp, isfinite, log
from typing import Any

from minigpt.training_monitor.detectors.matrix_ratios import matrices
from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals

EVERY = 4
"""Steps between looks at single matrices: their layers are looked at every step."""
LOOKS = 6
"""Looks before a matrix has a normal share."""
HOLDS = 2
"""Looks in a row that a share must be too low."""
SMOOTHING = 0.25
LEAST_SHARE = 1e-3
"""Of the norm, that a matrix must usually have: what had nothing has nothing to lose."""
NOISE = 6.0
"""Mean absolute deviations (log space) that a fall must exceed: what attention learns, query and key, comes and goes by
factors of a hundred in small runs."""


class MatrixShares:
    """A matrix is lost when its share and its norm fall at once far below what they were.

    A slow fall is not judged: a layer's share is, against an anchor, and single matrices do drift. Nor is an exact
    zero, which is a rule of its own.
    """

    def __init__(self, share_ratio: float, fall_ratio: float) -> None:
        self._share_ratio = share_ratio
        self._fall_ratio = fall_ratio
        self._facts: ParameterFacts | None = None
        self._matrices: list[tuple[int, str]] = []
        self.clear()

    def clear(self) -> None:
        """All is learnt anew."""
        self._calls = self._looks = 0
        self._normals: dict[str, tuple[float, float, float]] = {}  # log share, log norm, noise of the share
        self._floors: dict[str, tuple[float, float]] = {}
        self._low: dict[str, int] = {}

    def lost(self, parameters: ParameterSignals, total: float) -> list[str]:
        """Names of the matrices that are lost now, in model order."""
        self._calls += 1
        if self._calls % EVERY == 0:
            self._look(parameters, total)
        return self._of_their_own() if self._low else []

    def _of_their_own(self) -> list[str]:
        """The lost ones, without modules that are low as a whole: a branch that the rest of the stream drowns."""
        whole = {_module(name) for name in self._low}
        whole -= {_module(name) for _, name in self._matrices if name not in self._low}
        siblings = [_module(name) for _, name in self._matrices]
        whole = {module for module in whole if siblings.count(module) > 1}
        return [name for name, looks in self._low.items() if looks >= HOLDS and _module(name) not in whole]

    def _look(self, parameters: ParameterSignals, total: float) -> None:
        if parameters.facts is not self._facts:
            self._facts, self._matrices = parameters.facts, matrices(parameters.facts)
        self._looks += 1
        norms, low, level = parameters.grad_norms, {}, log(total)
        for index, name in self._matrices:
            norm = norms[index]
            if not norm or not isfinite(norm):
                continue
            floor = self._floors.get(name)
            if floor is not None and norm < floor[0] and norm < floor[1] * total:
                low[name] = self._low.get(name, 0) + 1
            else:
                self._follow(name, log(norm), level)
        self._low = low

    def _follow(self, name: str, norm: float, total: float) -> None:
        share = norm - total
        usual, level, noise = self._normals.get(name, (share, norm, 0.0))
        noise += SMOOTHING * (abs(share - usual) - noise)
        usual += SMOOTHING * (share - usual)
        level += SMOOTHING * (norm - level)
        self._normals[name] = (usual, level, noise)
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
            "normals": {name: list(normal) for name, normal in self._normals.items()},
            "floors": {name: list(floor) for name, floor in self._floors.items()},
            "low": dict(self._low),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._calls, self._looks = state["calls"], state["looks"]
        self._normals = {
            name: (share, norm, noise) for name, (share, norm, noise) in state["normals"].items()
        }
        self._floors = {name: (norm, share) for name, (norm, share) in state["floors"].items()}
        self._low = dict(state["low"])


def _module(name: str) -> str:
    """`blocks.1.attention.query.weight` -> `blocks.1.attention`."""
    return ".".join(name.split(".")[:-2])
