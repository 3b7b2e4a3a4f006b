"""What `lab norm` compares: cases of depth, norm and warm-up, their gradients' variances, their speed."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from minigpt.lab.experiments.experiment import Results
from minigpt.lab.experiments.intervals import Mean, Ratio, mean_of
from minigpt.lab.experiments.layers import number
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.ratios import paired, ratio_of

PRE, POST = "Pre-Norm", "Post-Norm"
COLD, WARM = "no warm-up", "warm-up"
OWN, XAVIER = "own", "xavier"
"""First weights: MiniGPT's, and Xavier's; keys of `Outcome.before`."""


class Case(NamedTuple):
    """One arm."""

    depth: int
    norm: str
    rate: str
    """The learning rate, as it is written."""
    warm_up: str

    @property
    def name(self) -> str:
        return f"{self.setting}, {self.norm}"

    @property
    def setting(self) -> str:
        """Without the norm: two cases of one setting are compared."""
        return f"{self.depth} layers, {self.rate}, {self.warm_up}"


class Duel(NamedTuple):
    """The same setting with each norm."""

    post: Case
    pre: Case


def duels_in(results: Results, cases: Sequence[Case]) -> list[Duel]:
    """The settings of which both norms were trained, in the order of the cases."""
    found = [Duel(case, case._replace(norm=PRE)) for case in cases if case.norm == POST]
    return [duel for duel in found if results.get(duel.post.name) and results.get(duel.pre.name)]


def depths_in(results: Results, cases: Sequence[Case]) -> list[int]:
    """Those of which both norms were trained in some setting."""
    return sorted({duel.post.depth for duel in duels_in(results, cases)})


def at_start(results: Results, cases: Sequence[Case], depth: int, norm: str) -> list[Outcome]:
    """An outcome a seed: the first weights and the first batch depend neither on the rate nor on the warm-up."""
    by_seed = {
        one.seed: one
        for case in cases
        if (case.depth, case.norm) == (depth, norm)
        for one in results.get(case.name, ())
    }
    return [by_seed[seed] for seed in sorted(by_seed)]


def block_norms(look: Mapping[str, Any]) -> list[float]:
    """Of a look at layers: the gradient norm of each block; NaN where it was not finite."""
    return [number(norm) for norm in look["blocks"]]


def variance_over_layers(look: Mapping[str, Any]) -> float:
    """Of the blocks' gradient norms around their mean."""
    return _variance(block_norms(look))


def variance_over_steps(outcome: Outcome) -> float:
    """Of the whole gradient's norm, before clipping, around its mean, over the second half of the run."""
    half = outcome.grad_norms[len(outcome.grad_norms) // 2 :]
    return _variance([number(norm) for norm in half])


def spread(look: Mapping[str, Any]) -> float:
    """The largest of the blocks' gradient norms : the smallest."""
    norms = block_norms(look)
    return max(norms) / min(norms) if min(norms) > 0 else math.nan


def _variance(values: Sequence[float]) -> float:
    return statistics.pvariance(values) if all(map(math.isfinite, values)) else math.nan


def failed(outcome: Outcome) -> bool:
    """Whether the run blew up or learnt nothing."""
    return outcome.blew_up is not None or outcome.learnt_nothing


READINGS: Mapping[str, Callable[[Outcome], float]] = {
    "over the layers at the start": lambda one: variance_over_layers(one.before[OWN]),
    "over the layers at the start, Xavier's weights": lambda one: variance_over_layers(one.before[XAVIER]),
    "over the layers at the end": lambda one: variance_over_layers(one.after),
    "over the steps": variance_over_steps,
}
"""What may be meant by a gradient's variance."""


def variance_ratio(results: Results, duel: Duel, reading: str) -> Ratio:
    """Post-Norm's variance : Pre-Norm's."""
    read = READINGS[reading]
    return ratio_of([(read(post), read(pre)) for post, pre in paired(results, duel.post.name, duel.pre.name)])


def speed_ratio(results: Results, duel: Duel) -> Ratio:
    """Steps that Post-Norm takes : steps that Pre-Norm takes, to the final loss of the worse of the two.

    Where Post-Norm blew up, Pre-Norm's final loss is what it never came to: a lower bound.
    """
    both = paired(results, duel.post.name, duel.pre.name)
    steps = [found for post, pre in both if (found := steps_of_pair(post, pre)) is not None]
    return ratio_of([(post, pre) for post, pre, _ in steps], at_least=any(bound for _, _, bound in steps))


def steps_of_pair(post: Outcome, pre: Outcome) -> tuple[int, int, bool] | None:
    """Steps of each to the worse one's final loss, and whether the first are only a bound; None: no such loss.

    The worse one comes to its own final loss at its last step at the latest.
    """
    if pre.blew_up is not None:
        return None
    if post.blew_up is not None:
        return max(post.steps, pre.steps), pre.steps_to(pre.final_loss) or pre.steps, True
    target = max(post.final_loss, pre.final_loss)
    return post.steps_to(target) or post.steps, pre.steps_to(target) or pre.steps, False


def loss_difference(results: Results, first: Case, second: Case) -> Mean:
    """Final loss of the first less that of the second, in nats, over the seeds in which both are finite."""
    both = paired(results, first.name, second.name)
    differences = [one.final_loss - other.final_loss for one, other in both]
    return mean_of([difference for difference in differences if math.isfinite(difference)])
