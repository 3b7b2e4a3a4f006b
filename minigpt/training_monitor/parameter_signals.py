"""What is known of every parameter at one step."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class ParameterFacts:
    """What rarely changes about a model's parameters, in model order; the same object until something does."""

    names: tuple[str, ...]
    """Without wrapper prefixes."""
    groups: tuple[str, ...]
    """Each parameter's layer group."""
    sizes: tuple[int, ...]
    """Number of elements."""
    trainable: tuple[bool, ...]
    """requires_grad."""
    optimized: tuple[bool, ...] | None
    """Whether some optimizer has it; None: the optimizers are not known."""
    resting: tuple[bool, ...] | None = None
    """Whether the optimizer has it in a group whose learning rate is 0 now; None: in none such, or not known."""

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def all_trainable(self) -> bool:
        """Whether no parameter is frozen."""
        return all(self.trainable)

    @cached_property
    def all_optimized(self) -> bool:
        """Whether every parameter is known to be in some optimizer."""
        return self.optimized is not None and all(self.optimized)


@dataclass(frozen=True, slots=True)
class ParameterSignals:
    """Numbers of one step, each sequence in the order of `facts.names`."""

    facts: ParameterFacts
    grad_norms: Sequence[float | None]
    """L2 norm of the gradient, before clipping; None: the parameter has no gradient this step."""
    weight_norms: Sequence[float] | None = None
    """L2 norm of the weights that this step's forward used; None: not measured."""
    update_norms: Sequence[float] | None = None
    """L2 norm of the change since the step before (so: of the update that ended it), estimated from a fixed
    sample of elements, exactly 0 when none of them moved; None: not measured, or nothing to compare with yet."""
    zero_fractions: Sequence[float | None] | None = None
    """Share of sampled gradient elements that are exactly zero; None: not looked at this step."""
    moved_fractions: Sequence[float] | None = None
    """Share of sampled weights that differ at all from the step before; None: not looked at this step."""
