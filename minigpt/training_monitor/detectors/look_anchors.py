"""What the numbers of a closer look were when all was well: each is measured against that."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.look import Look

OUTPUT = "output"
UNTRAINED_STEPS = 40
"""Before this step most numbers still grow on their own."""


class LookAnchors:
    """The median of a number's first `looks` looks, by its kind (attention, activation, dead, OUTPUT) and group."""

    def __init__(self, looks: int) -> None:
        self._looks = looks
        self._early: dict[str, list[float]] = {}  # the looks that an anchor will be taken from
        self._early_at = 0  # step of the first of them
        self._anchors: dict[str, float] = {}

    def of(self, kind: str, group: str) -> float | None:
        """The anchor, or the first look that it will be taken from, if that was not of an untrained model."""
        key = f"{kind} {group}"
        first = self._early.get(key) if self._early_at >= UNTRAINED_STEPS else None
        return self._anchors.get(key, first[0] if first else None)

    def take(self, step: int, look: Look) -> None:
        """Takes a look at which all is well."""
        self._early_at = self._early_at if self._early else step
        numbers: list[tuple[str, Mapping[str, float]]] = [
            ("attention", look.attention_logit_max),
            ("activation", look.activation_rms),
            ("dead", look.dead_unit_fraction),
            (OUTPUT, {"logits": look.output_logit_rms or 0.0, "partition": look.log_partition or 0.0}),
        ]
        for kind, values in numbers:
            for group, value in values.items():
                key = f"{kind} {group}"
                if key in self._anchors or not isfinite(value):
                    continue
                seen = self._early.setdefault(key, [])
                seen.append(value)
                if len(seen) >= self._looks:
                    self._anchors[key] = median(self._early.pop(key))

    def forget(self, kind: str) -> None:
        """The anchors of one kind are taken anew."""
        for anchors in (self._anchors, self._early):
            for key in [key for key in anchors if key.startswith(f"{kind} ")]:
                del anchors[key]

    def clear(self) -> None:
        """All are."""
        self._anchors.clear()
        self._early.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "early": {key: list(values) for key, values in self._early.items()},
            "early_at": self._early_at,
            "anchors": dict(self._anchors),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._early = {key: list(values) for key, values in state["early"].items()}
        self._early_at = state["early_at"]
        self._anchors = dict(state["anchors"])
