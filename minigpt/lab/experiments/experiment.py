"""What an experiment is: arms that differ in one thing, seeds, and what is made of their outcomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minigpt.training.run import Run

Look = Callable[["Run"], Mapping[str, Any]]
"""Measures a built run; a function of a module (or a `partial` of one), since it is sent to another process."""
Results = Mapping[str, Sequence[Outcome]]
"""By arm, in the arms' order: an outcome a seed, in the seeds' order."""

Held = Literal["held", "held in part", "did not hold", "cannot be told"]

BASE = (
    "model.num_layers=4",
    "model.hidden_size=128",
    "model.num_heads=4",
    "model.context_length=128",
    "model.qk_norm=false",
    "data.tokenizer.vocab_size=1024",
    "optimizer.name=adamw",
    "optimizer.learning_rate=3e-3",
    "optimizer.embedding_learning_rate_ratio=1",
    "optimizer.betas=[0.9,0.95]",
    "schedule.warmup_steps=20",
    "training.max_steps=200",
    "training.tokens_per_step=2048",
    "training.mixed_precision=off",
    "training.compile=off",
    "training.eval_every_steps=100000",
    "training.eval_tokens=65536",
    "training.sample_tokens=0",
    "checkpoint.every_steps=100000",
)
"""Over the preset `small`: a GPT of about a million parameters, whose step takes a core some tens of milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One configuration of an experiment."""

    name: str
    overrides: tuple[str, ...] = ()
    """Over all others, the user's among them, as for --set: what the arm is compared for."""
    before: Look | None = None
    """Called with the run before its first step; may change it. What it returns stands in `Outcome.before`."""
    after: Look | None = None
    """Called with the run after its last step, for `Outcome.after`."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What somebody claims, and what was found here."""

    text: str
    """The claim, with its figure."""
    held: Held
    found: str
    """One sentence with the figures of this run of the experiment."""


@dataclass(frozen=True, kw_only=True)
class Short:
    """A form of the experiment that takes seconds: fewer seeds and arms, shorter runs."""

    seeds: int
    overrides: tuple[str, ...]
    arms: tuple[str, ...] | None = None
    """Names; None: all."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A grid of trainings and what to make of it."""

    name: str
    question: str
    definitions: str
    """What the words of the table mean, in a few sentences for its reader."""
    arms: tuple[Arm, ...]
    seeds: int
    short: Short
    tables: Callable[[Results], Sequence[Table]]
    claims: Callable[[Results], Sequence[Claim]]
    draw: Callable[[Results, "Figure"], None]
    figure_inches: tuple[float, float] = (10.0, 4.0)
    overrides: tuple[str, ...] = field(default=())
    """Of every arm, over BASE."""
    alone: bool = False
    """One run at a time, with all cores: where speed is measured."""
