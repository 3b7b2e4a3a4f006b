"""A crash bundle's step done again, layer by layer, as a story for people."""

from collections.abc import Iterator
from math import isfinite
from pathlib import Path

import torch

from minigpt.errors import CheckpointError, MiniGPTError
from minigpt.training.bundle import Bundle, read_bundle
from minigpt.training.passage import struck
from minigpt.training.precision import resolve_precision
from minigpt.training.redo import Replayed, model_of, replayed
from minigpt.training_monitor.blame import Blame

NAMES = {"off": "fp32"}
"""Of a run's precision, for people."""
TOO_LARGE = 1e5
"""Healthy residual streams stay below 1e4, even those of large models with their few massive activations."""
COLUMNS = "{:<14} {:>15} {:>15} {:>15} {:>12}"


def replay(path: Path, device: torch.device, precision: str | None) -> Iterator[str]:
    """The story of a bundle's step, line by line; in `precision` (off, bf16, fp16, or "run": as it was) alone, else in
    fp32, and as it was where fp32 shows nothing.

    Raises:
        CheckpointError: the bundle cannot be read or does not fit this MiniGPT.
    """
    bundle = read_bundle(path)
    try:
        yield from _story(bundle, path, device, precision)
    except MiniGPTError:
        raise
    # A bundle of another make can fail at any of its values.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise CheckpointError(
            f"{path} is not a crash bundle that can be replayed ({type(error).__name__}: {reason}); was it changed?"
        ) from error


def _story(bundle: Bundle, path: Path, device: torch.device, precision: str | None) -> Iterator[str]:
    model = model_of(bundle, path, device)
    yield from _headline(bundle, path)
    wanted = bundle.precision if precision == "run" else precision or "off"
    first = replayed(bundle, model, resolve_precision(wanted, device))
    yield from _told(first, bundle)
    second = None
    if precision is None and first.finite and bundle.precision != "off":
        second = replayed(bundle, model, resolve_precision(bundle.precision, device))
        yield from _told(second, bundle)
    yield ""
    yield f"So: {_conclusion(bundle, first, second)}"


def _headline(bundle: Bundle, path: Path) -> Iterator[str]:
    environment = bundle.identity.get("environment", {})
    precision = NAMES.get(bundle.precision, bundle.precision)
    loss, norm = (float(bundle.signals.get(key, "nan")) for key in ("loss", "grad_norm"))
    versions = f"minigpt {environment.get('minigpt', '?')}, torch {environment.get('torch', '?')}"
    yield f"Bundle:  {path.name}: step {bundle.step} of {bundle.identity.get('name', '?')}, {bundle.written_at}"
    yield f"         {precision} on {bundle.device}, {versions}, rank {bundle.rank} of {bundle.world_size}"
    yield f"Reason:  {bundle.reason}: loss {loss:.6g}, grad norm {norm:.6g}, lr {bundle.signals.get('lr', 0.0):.3g}"
    count = sum(batch.inputs_BT.shape[0] for batch in bundle.micro_batches)
    length = bundle.micro_batches[0].inputs_BT.shape[1]
    yield f"Batch:   {count} sequences of {length} tokens in {len(bundle.micro_batches)} micro-batches"
    before = [record for record in bundle.records if record.get("step", 0) < bundle.step][-3:]
    if before:
        steps = ", ".join(
            f"{record['step']}: loss {float(record['loss']):.4f} norm {float(record['grad_norm']):.3g}"
            for record in before
        )
        yield f"Before:  {steps}"
    if bundle.blame:
        yield f"Then:    {_blame_of(bundle).sentence()}"
    if not bundle.weights_exact:
        yield "Note:    the weights may be one update later than those of the step (a GPU's numbers are read late)"


def _told(done: Replayed, bundle: Bundle) -> Iterator[str]:
    """One time through the step, for people."""
    name = NAMES.get(done.precision, done.precision)
    yield ""
    result = "nothing is NaN or infinite" if done.finite else "it happens again"
    yield f"Replay in {name}: loss {done.loss:.6g}, {result}"
    yield "   " + COLUMNS.format("layer", "activation rms", "activation max", "attention logit", "grad norm")
    for layer in dict.fromkeys([*done.activations, *done.grad_norms]):
        rms, largest, logit = done.activations.get(layer, (None, None, None))
        cells = [_cell(value) for value in (rms, largest, logit, done.grad_norms.get(layer))]
        numbers = [value for value in (rms, largest, done.grad_norms.get(layer)) if value is not None]
        mark = "" if all(isfinite(value) for value in numbers) else "  <-"
        yield "   " + COLUMNS.format(layer, *cells) + mark
    if done.blame.found:
        yield f"   {done.blame.sentence()}"
        if done.blame.phase != "weights":
            yield f"   {_where(done, bundle)}"


def _where(done: Replayed, bundle: Bundle) -> str:
    """The text at which it happens."""
    batch = bundle.micro_batches[done.micro_batch]
    row, place = struck(done.blame, batch)
    passage = bundle.passages[done.micro_batch][row]
    sequences = batch.inputs_BT.shape[0]
    known = done.blame.shape[:1] == (sequences,)
    which = f"{done.blame.rows_hit} of {sequences} sequences; the first" if known else "the batch's first"
    return (
        f"in micro-batch {done.micro_batch + 1}, {which}: {passage.document or 'a document no longer known'}"
        f", token {passage.offset + place}: {passage.text!r}"
    )


def _conclusion(bundle: Bundle, first: Replayed, second: Replayed | None) -> str:
    ran = NAMES.get(bundle.precision, bundle.precision)
    tried = NAMES.get(first.precision, first.precision)
    if not first.finite:
        if first.blame.phase == "weights":
            return (
                f"the weights were broken before this step: go back to a checkpoint in which "
                f"{first.blame.parameter} is finite"
            )
        return f"{tried} gives it too, so the number format is not the cause; look at {first.blame.place}"
    if second is not None and not second.finite:
        text = (
            f"fp32 does not reproduce it and {ran} does: the precision is the cause ({second.blame.place} leaves "
            f"the range of {ran}); try training.mixed_precision=bf16, or off"
        )
        largest = max((each[1] for each in first.activations.values()), default=0.0)
        if largest > TOO_LARGE:
            text += (
                f". But activations reach {largest:.2g} in fp32 as well: they grew first, so look at the learning "
                "rate and at the steps before this one"
            )
        return text
    if not bundle.weights_exact:
        return f"{tried} does not reproduce it; the weights here are one update later, which may be why"
    if bundle.precision not in ("off", first.precision) and second is None:
        return f"{tried} does not reproduce it; try --precision run (it ran in {ran})"
    own = Blame(**bundle.blame) if bundle.blame else Blame("not reproduced")
    if own.found:
        return (
            f"{tried} does not reproduce it here, and the run itself could ({own.place}): what differs is not in the "
            "bundle, such as changed code, a hook, another device or version"
        )
    if bundle.compiled:
        return "it does not happen in eager code: the compiled one may be the cause; try training.compile=off"
    if isfinite(float(bundle.signals.get("loss", "nan"))) and isfinite(
        float(bundle.signals.get("grad_norm", "nan"))
    ):
        return "every number of this step is finite, as it was in the run; the table says how large they are"
    return "done again, every number is finite: suspect the machine (memory, overheating) or another rank's batch"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _blame_of(bundle: Bundle) -> Blame:
    return Blame(**bundle.blame)
