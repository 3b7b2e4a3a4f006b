"""The match: contenders take turns, round after round, so that the machine's moods fall on all of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigpt.lab.bench.contenders import Contender
from minigpt.lab.bench.process import Contestant, Turn
from minigpt.lab.bench.shapes import Terms

Say = Callable[[str], None]
CEILING = Contender("ceiling", "ceiling")
WARM_STEPS = 1
"""Steps at the head of a turn that are not timed: they find the caches full of another contender's numbers."""


@dataclass
class Entry:
    """One contender's part in the match."""

    contender: Contender
    parameters: int
    flops_per_token: int
    vocab_size: int
    note: str
    start_seconds: float
    """From the program's start to the end of the first step: imports, data, model, compiling, that step."""
    losses: list[float]
    seconds_per_step: list[float] = field(default_factory=list)
    """One a round."""
    peak_bytes: int | None = None


@dataclass
class Match:
    """All that was measured on one shape."""

    terms: Terms
    threads: int
    entries: list[Entry]
    ceilings: list[float]
    """FLOP/s of the best matrix product, one a round."""
    peak_flops: float | None = None
    """Of the device, by its data sheet; None where it is not known (a CPU's)."""


@dataclass
class Field:
    """The contenders at the start, each built, compiled and one step old."""

    terms: Terms
    ceiling: Contestant
    contestants: list[Contestant]
    entries: list[Entry]


@contextmanager
def assembled(
    contenders: Sequence[Contender],
    terms: Terms,
    *,
    threads: int | None,
    folder: Path,
    say: Say,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Field]:
    """Start every contender, one after the other, for as long as the block lasts; their files go to `folder`.

    Raises:
        ContenderError: one cannot take part.
    """
    surroundings = dict(environment or {})
    if threads is not None:
        surroundings["OMP_NUM_THREADS"] = str(threads)
    with ExitStack() as stack:
        ceiling = stack.enter_context(Contestant(CEILING, terms, folder / "ceiling", surroundings))
        ceiling.start()
        field = Field(terms, ceiling, [], [])
        for number, contender in enumerate(contenders):
            one = stack.enter_context(Contestant(contender, terms, folder / str(number), surroundings))
            one.start()
            entry = _entry(one, one.turn(1, warm=0))
            field.contestants.append(one)
            field.entries.append(entry)
            say(f"{contender.spec}: first step after {entry.start_seconds:.0f} s, {_loss(entry)}")
        yield field


def play(field: Field, *, rounds: int, steps: int, say: Say) -> Match:
    """`rounds` rounds in which each contender makes `steps` timed steps; another one begins each time.

    Raises:
        ContenderError: one left the match.
    """
    there, entries = field.contestants, field.entries
    ceilings = []
    for number in range(rounds):
        ceilings.append(max(field.ceiling.turn(1, warm=0).values))
        first = number % len(there)
        for index in [*range(first, len(there)), *range(first)]:
            _note(entries[index], there[index].turn(steps, WARM_STEPS))
        say(f"round {number + 1} of {rounds}, tokens/s: {_paces(entries, field.terms)}")
    facts = field.ceiling.facts
    return Match(field.terms, facts["threads"], entries, ceilings, facts["peak_flops"])


def _entry(one: Contestant, first: Turn) -> Entry:
    facts: dict[str, Any] = one.facts
    return Entry(
        one.contender,
        facts["parameters"],
        facts["flops_per_token"],
        facts["vocab_size"],
        facts["note"],
        start_seconds=first.since_start_seconds,
        losses=list(first.values),
        peak_bytes=first.peak_bytes,
    )


def _note(entry: Entry, turn: Turn) -> None:
    entry.seconds_per_step.append(turn.seconds / turn.steps)
    entry.losses += turn.values
    entry.peak_bytes = turn.peak_bytes


def _loss(entry: Entry) -> str:
    # On CUDA a step's numbers are read one step late.
    return f"loss {entry.losses[0]:.3f}" if entry.losses else "loss not read yet"


def _paces(entries: Sequence[Entry], terms: Terms) -> str:
    paces = ((one.contender.spec, terms.shape.tokens_per_step / one.seconds_per_step[-1]) for one in entries)
    return ", ".join(f"{spec} {pace:,.0f}" for spec, pace in paces)
