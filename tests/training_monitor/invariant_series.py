"""Steps of a small model, for the rules about single parameters: each test changes what it is about."""

import json
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from minigpt.training_monitor.batch_facts import BatchFacts
from minigpt.training_monitor.detectors.detector import Detector
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals
from minigpt.training_monitor.signals import StepSignals

NAMES = (
    "embedding.weight",
    "blocks.0.norm.weight",
    "blocks.0.query.weight",
    "blocks.0.up.weight",
    "blocks.1.norm.weight",
    "blocks.1.query.weight",
    "blocks.1.up.weight",
    "blocks.2.norm.weight",
    "blocks.2.query.weight",
    "blocks.2.up.weight",
    "norm.weight",
    "head.weight",
)
GROUPS = ("embedding", *("blocks.0",) * 3, *("blocks.1",) * 3, *("blocks.2",) * 3, "norm", "head")
SIZES = tuple(64 if "norm" in name else 4096 for name in NAMES)
FACTS = ParameterFacts(NAMES, GROUPS, SIZES, (True,) * len(NAMES), (True,) * len(NAMES))

Change = Callable[[StepSignals], StepSignals]


def facts_with(
    *, frozen: Iterable[str] = (), left_out: Iterable[str] = (), names: tuple[str, ...] = NAMES
) -> ParameterFacts:
    """Facts where parameters whose name begins with one of these are frozen, or in no optimizer."""
    out, off = tuple(left_out), tuple(frozen)
    groups = tuple(".".join(name.split(".")[:2]) if "." in name[:8] else name for name in names)
    return ParameterFacts(
        names,
        GROUPS if names is NAMES else groups,
        tuple(64 if "norm" in name else 4096 for name in names),
        tuple(not name.startswith(off) for name in names),
        tuple(not name.startswith(out) for name in names),
    )


def healthy_step(step: int, facts: ParameterFacts = FACTS) -> StepSignals:
    """A step as it should be, with noise that depends on the step alone."""
    chance = random.Random(step)
    grads = [chance.lognormvariate(-2, 0.2) for _ in facts.names]
    updates = [0.01 * chance.lognormvariate(0, 0.1) if step > 1 else 0.0 for _ in facts.names]
    weights = [8.0 + 0.001 * step for _ in facts.names]
    parameters = ParameterSignals(facts, grads, weights, updates if step > 1 else None)
    return with_parameters(
        StepSignals(
            step=step,
            loss=3.0,
            grad_norm=1.0,
            lr=1e-3,
            scheduled_lr=1e-3,
            leftover_grad_norm=0.0,
            optimizer_steps=float(step - 1),
            batch=BatchFacts(step, 512, chance.randint(90, 110), 0.1, 1.0, 0.05, 0.0),
        ),
        parameters,
    )


def with_parameters(signals: StepSignals, parameters: ParameterSignals) -> StepSignals:
    """The step with these parameters' numbers, and the groups' as they follow from them."""
    grads = _by_group(parameters.facts, parameters.grad_norms)
    weights = _by_group(parameters.facts, parameters.weight_norms or ())
    updates = _by_group(parameters.facts, parameters.update_norms or ())
    return replace(
        signals,
        parameters=parameters,
        grad_norm=math.hypot(*grads.values()) if grads else 0.0,
        group_norms=grads,
        weight_norms=weights,
        update_ratios={name: update / weights[name] for name, update in updates.items()},
    )


def _by_group(facts: ParameterFacts, norms: Iterable[float | None]) -> dict[str, float]:
    members: dict[str, list[float]] = {}
    for group, norm in zip(facts.groups, norms, strict=False):
        if norm is not None:
            members.setdefault(group, []).append(norm)
    return {group: math.hypot(*own) for group, own in members.items()}


def changed(signals: StepSignals, prefix: str | tuple[str, ...], **rows: Any) -> StepSignals:
    """The step with grad_norms=, update_norms= or weight_norms= of some parameters set (or mapped by a function)."""
    parameters = signals.parameters
    assert parameters is not None
    new: dict[str, Any] = {}
    for row, value in rows.items():
        old = getattr(parameters, row)
        if old is not None:
            pairs = zip(parameters.facts.names, old, strict=True)
            new[row] = [_set(value, was) if name.startswith(prefix) else was for name, was in pairs]
    return with_parameters(signals, replace(parameters, **new))


def _set(value: Any, was: float) -> Any:
    return value(was) if callable(value) else value


def told(
    detector: Detector, steps: int, change: Change | None = None, *, since: int = 1, until: int = 10**9
) -> list[Finding]:
    """What a detector says of a healthy run, changed from one step on."""
    run = map(healthy_step, range(1, steps + 1))
    faulty = (each if change is None or not since <= each.step <= until else change(each) for each in run)
    return heard(detector, faulty)


def heard(detector: Detector, series: Iterable[StepSignals]) -> list[Finding]:
    """All that a detector says of a series."""
    return [found for signals in series for found in detector.observe(signals)]


def summary(findings: Iterable[Finding]) -> list[tuple[str, str, int, bool]]:
    """(name, status, step, interrupts) of each."""
    return [(found.name, found.status, found.step, found.interrupts) for found in findings]


def assert_resumes_exactly(build: Callable[[], Detector], signals: list[StepSignals]) -> None:
    """A detector whose state went through JSON at any step says the same, and ends in the same state."""
    whole = build()
    expected = [whole.observe(each) for each in signals]
    assert any(expected), "a series that moves nothing shows nothing"
    for split in range(0, len(signals), max(len(signals) // 12, 1)):
        before, after = build(), build()
        first = [before.observe(each) for each in signals[:split]]
        after.load_state_dict(json.loads(json.dumps(before.state_dict())))
        assert repr(first + [after.observe(each) for each in signals[split:]]) == repr(expected)
        assert json.dumps(after.state_dict()) == json.dumps(whole.state_dict())


def assert_silent_when_not_finite(build: Callable[[], Detector]) -> None:
    """NaN in every number moves no detector to speak, and leaves it able to go on."""
    detector = build()
    nan = math.nan
    for step in range(1, 61):
        signals = healthy_step(step)
        if 30 <= step < 36:
            signals = changed(signals, "", grad_norms=nan, update_norms=nan, weight_norms=nan)
            signals = replace(signals, loss=nan, leftover_grad_norm=nan, update_skipped=True)
        assert detector.observe(signals) == []
    json.dumps(detector.state_dict(), allow_nan=True)
