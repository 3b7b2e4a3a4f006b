"""How what goes on for ever stays bounded: all of the first, then every second, every fourth, ..."""

from typing import Any


def stride_at(number: int, first: int) -> int:
    """Of the things numbered from 1, the one at `number` is kept if this divides it: 1 up to `first`, and twice as much
    with every doubling. N things leave about first x (1 + log2(N / first) / 2)."""
    return 1 << ((number - 1) // first).bit_length()


class Thinning:
    """Counts things by their key, and lets fewer and fewer of one key pass."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._counts: dict[str, int] = {}

    def left_out(self, key: str) -> int | None:
        """How many of this key were left out right before this one; None: this one is, too."""
        count = self._counts[key] = self._counts.get(key, 0) + 1
        stride = stride_at(count, self._first)
        return None if count % stride else stride - 1

    def just_began(self, key: str) -> bool:
        """Whether the newest of this key is the first one too many."""
        return self._counts.get(key) == self._first + 1

    def state_dict(self) -> dict[str, Any]:
        return {"counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._counts = dict(state["counts"])
