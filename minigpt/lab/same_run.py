"""Whether two run folders hold the same run: every bit of the state, every number of the records."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt.checkpoint.files import checkpoint_path
from minigpt.lab.same_values import Difference, Walk, same_value
from minigpt.training.folder import EVENTS_NAME, METRICS_NAME, TENSORBOARD_NAME
from minigpt.training_monitor.sinks.json_lines import Record, read_json_lines

# What no two runs share, and no resume can bring back.
CLOCK_FIELDS = frozenset(("seconds", "tokens_per_second", "mfu", "memory_bytes"))
CLOCK_TAGS = frozenset(("train/tokens_per_second", "train/mfu", "train/memory_gib"))
CLOCK_RULES = ("throughput_drop", "memory_growth")
"""Rules of the monitor that judge the clock and the memory: what they find is no two runs' own."""
STATE = {
    "model_state_dict": "weights",
    "optimizer_state_dicts": "optimizer",
    "scaler_state_dict": "scaler",
    "rng": "random state of rank",
    "position": "position",
    "monitor": "monitor",
    "probe": "probe",
    "open_findings": "open findings",
    "micro_batch_size": "micro_batch_size",
    "precision": "precision",
}
"""The parts of a checkpoint that a run goes on from, and what people call them."""


@dataclass(frozen=True)
class Comparison:
    """What was compared, and all that differs."""

    after: int
    """The step that both have come to."""
    tensors: int
    numbers: int
    """In the tensors and beside them."""
    steps: int
    points: int
    """Of TensorBoard's curves."""
    evaluations: int
    in_state: tuple[Difference, ...]
    in_records: tuple[Difference, ...]
    """In the order of the steps, metrics.jsonl first."""
    first_step: int | None
    """The first step whose record differs; None where all agree."""

    @property
    def is_same(self) -> bool:
        return not self.in_state and not self.in_records


def compare_runs(first: Path, second: Path, step: int) -> Comparison:
    """The runs in two folders after `step` updates: state, metrics.jsonl, curves and evaluations."""
    walk = Walk()
    left, right = _loaded(first, step), _loaded(second, step)
    in_state = [
        difference
        for key, name in STATE.items()
        for difference in walk.differences(left.get(key), right.get(key), name)
    ]
    metrics, others = (list(read_json_lines(folder / METRICS_NAME)) for folder in (first, second))
    in_metrics, first_step = _metrics_differences(metrics, others, step)
    curves, evaluations = _curves(first), _evaluations(first)
    rest = [
        *Walk().differences(evaluations, _evaluations(second), "evaluation after step"),
        *_curve_differences(curves, _curves(second)),
    ]
    return Comparison(
        after=step,
        tensors=walk.tensors,
        numbers=walk.numbers,
        steps=len(metrics),
        points=sum(len(points) for points in curves.values()),
        evaluations=len(evaluations),
        in_state=tuple(sorted(in_state, key=lambda difference: _order(difference.place))),
        in_records=(*in_metrics, *rest),
        first_step=first_step,
    )


def _loaded(folder: Path, step: int) -> dict[str, Any]:
    """The state, mapped rather than read: two checkpoints of a large model need not fit the memory."""
    path = checkpoint_path(folder, step)
    state: dict[str, Any] = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    for name in CLOCK_RULES:
        state["monitor"].get("detectors", {}).pop(name, None)
    return state


def _order(place: str) -> tuple[int, str]:
    names = list(STATE.values())
    return next((index for index, name in enumerate(names) if place.startswith(name)), len(names)), place


def _metrics_differences(
    first: list[Record], second: list[Record], step: int
) -> tuple[list[Difference], int | None]:
    """What metrics.jsonl differs in, and the first step that does; each step must be there once."""
    found, first_step = [], None
    for records in (first, second):
        steps = [record.get("step") for record in records]
        if steps != list(range(1, step + 1)):
            found.append(Difference("metrics.jsonl", f"has the steps {steps}, not 1 to {step} once each"))
    for left, right in zip(first, second, strict=False):
        names = [key for key in [*left, *right] if key not in CLOCK_FIELDS]
        differing = [
            difference
            for key in dict.fromkeys(names)
            for difference in Walk().differences(left.get(key), right.get(key), key)
        ]
        if differing and first_step is None:
            first_step = left.get("step")
        at = f"step {left.get('step')}"
        found += [Difference(f"{at} {difference.place}", difference.how) for difference in differing]
    return found, first_step


def _curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every TensorBoard series but the clock's, as TensorBoard shows it: (step, value) in order."""
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    events = EventAccumulator(str(folder / TENSORBOARD_NAME), size_guidance={"scalars": 0})
    with _quiet("tensorboard"):  # it announces each point that a resume has superseded
        events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag not in CLOCK_TAGS]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


@contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    logger = logging.getLogger(logger_name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _curve_differences(
    first: dict[str, list[tuple[int, float]]], second: dict[str, list[tuple[int, float]]]
) -> Iterator[Difference]:
    for tag in sorted(first.keys() | second.keys()):
        left, right = first.get(tag, []), second.get(tag, [])
        if [step for step, _ in left] != [step for step, _ in right]:
            yield Difference(f"TensorBoard {tag}", f"has {len(left)} and {len(right)} points, of other steps")
            continue
        for (step, one), (_, other) in zip(left, right, strict=True):
            if not same_value(one, other):
                yield Difference(f"TensorBoard {tag} at step {step}", f"{one!r} and {other!r}")


def _evaluations(folder: Path) -> dict[int, list[Any]]:
    """What was measured after each evaluated step, once for each time that still stands."""
    found: dict[int, list[Any]] = {}
    for record in read_json_lines(folder / EVENTS_NAME):
        if record.get("kind") == "evaluation" and not record.get("superseded"):
            found.setdefault(record["step"], []).append(record.get("data"))
    return found
