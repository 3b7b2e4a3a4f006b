"""What `minigpt verify-resume` says: before, and as its verdict."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from minigpt.config.run_config import RunConfig
from minigpt.lab.same_run import Comparison
from minigpt.lab.verify_resume.rhythm import Rhythm
from minigpt.lab.verify_resume.suspects import Remedy, evidence

_SHOWN = 3


def plan_words(name: str, config: RunConfig, rhythm: Rhythm, device: str) -> Iterator[str]:
    """What is about to be trained."""
    of = f"of the run's {config.training.max_steps:,}" if not rhythm.finishes else "(the whole run)"
    yield f"Verifying that {name} resumes to the last bit on {device}: {rhythm.steps} steps {of}, three times"
    yield (
        f"  straight, straight again, and interrupted by SIGKILL in step {rhythm.kill_in} and by SIGTERM in step "
        f"{rhythm.terminate_in}: 5 processes, one after the other"
    )
    yield (
        f"  rates, batches and arithmetic are the run's own; checkpoints every {rhythm.checkpoint_every} steps, "
        f"evaluations every {rhythm.evaluate_every}"
    )


def equal_words(same: Comparison, state: dict[str, Any]) -> Iterator[str]:
    """The good verdict on a run that ended in `state`, and what it holds for."""
    compiled = state["position"].get("compiled_from")
    how = "eager" if compiled is None else f"compiled from step {compiled + 1} on"
    around = state["environment"]
    threads = f"{around['threads']} thread{'s' if around['threads'] != '1' else ''}"
    place = around.get("gpu", f"{around['cpu_capability']}, {threads}")
    yield (
        f"  computed in {state['precision'].replace('off', 'fp32')}, micro-batches of {state['micro_batch_size']}, "
        f"{how}; torch {around['torch']}, {place}"
    )
    yield (
        f"bit-exact: {same.tensors} tensors, {same.numbers:,} numbers of state (weights, optimizer, scaler, random "
        f"states, position, monitor); {same.steps} steps of metrics.jsonl, {same.points:,} points of TensorBoard, "
        f"{same.evaluations} evaluations"
    )


def resumed_unequal_words(found: Comparison, resumed_from: tuple[int, int]) -> Iterator[str]:
    """Two straight runs are the same, and the interrupted one is not."""
    yield "not bit-exact: two straight runs are the same to the last bit, and the interrupted one is not"
    yield from _differences(found)
    if found.first_step is not None:
        resumes = [step for step in resumed_from if step < found.first_step]
        if resumes:
            yield f"  the step is number {found.first_step - resumes[-1]} after the resume from step {resumes[-1]}"
    yield (
        "  what a resume depends on is in the checkpoint; so this is a fault of MiniGPT, or of a kernel that is "
        "seldom deterministic (run it again to see): please report it, with this output"
    )


def straight_unequal_words(
    runs: tuple[Path, Path],
    found: Comparison,
    *,
    helped: str | None,
    tried: Sequence[Remedy],
) -> Iterator[str]:
    """Two straight runs differ by themselves, so nothing can be said of a resume.

    `tried`: in order; `helped`: the command that verifies with the last of them, which made them equal.
    """
    yield (
        "not bit-exact: two straight runs differ already, so it is not the resume: training itself is not "
        "deterministic here"
    )
    yield from _differences(found)
    for line in evidence(*runs, found):
        yield f"  {line}"
    if helped is not None:
        yield f"  with {tried[-1].typed} two straight runs are the same to the last bit; to verify resume with it:"
        yield f"  {helped}"
    elif tried:
        yield f"  still not the same with {'; nor with '.join(remedy.typed for remedy in tried)}"


def _differences(found: Comparison) -> Iterator[str]:
    if found.first_step is not None:
        at = f"step {found.first_step} "
        first = [difference for difference in found.in_records if difference.place.startswith(at)]
        yield "  first in " + "; ".join(str(difference) for difference in first[:_SHOWN]) + _more(len(first))
    elif found.in_records:
        yield (
            "  in the records: "
            + "; ".join(map(str, found.in_records[:_SHOWN]))
            + _more(len(found.in_records))
        )
    if found.in_state:
        tensors = sum(difference.is_tensor for difference in found.in_state)
        others = len(found.in_state) - tensors
        yield f"  in the end {tensors} of {found.tensors} tensors of the state differ, and {others} single numbers"
        yield f"  the first: {found.in_state[0]}"
    else:
        yield "  in the end the state is the same: weights, optimizer and random states did not notice"


def _more(count: int) -> str:
    return f" and {count - _SHOWN} numbers more" if count > _SHOWN else ""
