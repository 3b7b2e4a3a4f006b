"""Each layer's usual share of the gradient norm, to notice one that has all but left it."""

from collections.abc import Mapping
from math import exp, isfinite, log
from typing import Any

SMOOTHING = 0.25
"""Weight of the newest value in a layer's normal."""
EVERY = 4
"""Once the normals are known, every so many steps are enough to follow them."""
ANCHOR_AFTER = 64
"""Steps after warm-up at which a layer's normal becomes its anchor, against which a slow fading shows."""

Normal = list[float]
"""Of one layer: log share and log norm, then the same two at the anchor."""


class LayerShares:
    """A layer is low when its share and its norm are both far below what they used to be.

    The share alone also falls when another layer explodes, the norm alone when everything fades.
    """

    def __init__(self, share_ratio: float, fall_ratio: float, min_history: int, warmup_steps: int) -> None:
        self._share_ratio = share_ratio
        self._fall_ratio = fall_ratio
        self._min_history = min_history
        self._warmup_steps = warmup_steps
        self._normals: dict[str, Normal] = {}
        self._floors: dict[str, tuple[float, float]] = {}
        self._seen = 0
        self._anchor_at = 0

    def low(self, group_norms: Mapping[str, float], total: float, step: int) -> list[str]:
        """The layers that are low now, in model order; the normals of the others follow."""
        if self._anchor_at == 0:
            self._anchor_at = max(step, self._warmup_steps) + ANCHOR_AFTER
        self._seen += 1
        found = []
        if self._seen > self._min_history:
            floors = self._floors
            for name, norm in group_norms.items():
                floor = floors.get(name)
                if floor is not None and norm < floor[0] and norm < floor[1] * total:
                    found.append(name)
        if self._seen <= self._min_history or self._seen % EVERY == 0:
            for name, norm in group_norms.items():
                if norm > 0.0 and isfinite(norm) and name not in found:
                    self._follow(name, log(norm), log(total), anchored=step > self._anchor_at)
        return found

    def _follow(self, name: str, level: float, total: float, *, anchored: bool) -> None:
        share = level - total
        normal = self._normals.setdefault(name, [share, level, share, level])
        normal[0] += SMOOTHING * (share - normal[0])
        normal[1] += SMOOTHING * (level - normal[1])
        if not anchored:
            normal[2:] = normal[:2]
        self._set_floors(name, normal)

    def _set_floors(self, name: str, normal: Normal) -> None:
        share, level, anchor_share, anchor_level = normal
        norm_floor = self._fall_ratio * exp(max(level, anchor_level))
        self._floors[name] = (norm_floor, self._share_ratio * exp(max(share, anchor_share)))

    def normal(self, name: str) -> float:
        """The share that a layer used to have."""
        share, _, anchor_share, _ = self._normals[name]
        return exp(max(share, anchor_share))

    def clear(self) -> None:
        """All is learnt anew."""
        self._normals.clear()
        self._floors.clear()
        self._seen = self._anchor_at = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "normals": {name: list(normal) for name, normal in self._normals.items()},
            "seen": self._seen,
            "anchor_at": self._anchor_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._normals = {name: list(normal) for name, normal in state["normals"].items()}
        self._seen, self._anchor_at = state["seen"], state["anchor_at"]
        self._floors = {}
        for name, normal in self._normals.items():
            self._set_floors(name, normal)
