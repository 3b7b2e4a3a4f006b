"""How many updates the optimizers' own state counts: where it falls, the state was lost."""

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.optim import Optimizer

WATCHED = 3


class OptimizerSteps:
    """Reads `step` of a few parameters of each optimizer that keeps one (Adam and its kin; not SGD, not Muon)."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = optimizers
        self._watched: list[list[Tensor]] = [[] for _ in optimizers]

    def counts(self) -> list[float | Tensor]:
        """A few counts, those kept on a device as 0-dim tensors there; the lowest is what the state vouches for.

        Empty: no optimizer keeps count. State that was there and is gone counts 0.
        """
        counts: list[float | Tensor] = []
        for index, optimizer in enumerate(self._optimizers):
            watched = self._watched[index]
            if not watched or not all("step" in optimizer.state.get(p, {}) for p in watched):
                watched = self._watched[index] = _owned(optimizer, watched) or _with_count(optimizer)
            if watched:
                counts += [_count(optimizer.state.get(p, {}).get("step", 0)) for p in watched]
            elif not optimizer.state and "betas" in optimizer.defaults:
                counts.append(0.0)
        return counts


def _with_count(optimizer: Optimizer) -> list[Tensor]:
    """First, middle and last of the parameters whose updates are counted."""
    found = [parameter for parameter, state in optimizer.state.items() if "step" in state]
    return found if len(found) <= WATCHED else [found[0], found[len(found) // 2], found[-1]]


def _owned(optimizer: Optimizer, parameters: Iterable[Tensor]) -> list[Tensor]:
    """Those that the optimizer still has: the user may have exchanged its parameters."""
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [parameter for parameter in parameters if id(parameter) in owned]


def _count(step: object) -> float | Tensor:
    if isinstance(step, Tensor):
        return float(step) if step.is_cpu else step.detach()
    return float(step) if isinstance(step, (int, float)) else 0.0
