"""What would make a training step smaller: by how much, and at what price in time, one change at a time."""

from dataclasses import dataclass, replace

from minigpt.model.count import (
    attention_flops_per_token,
    flops_per_token,
    num_matrix_parameters,
    padded_vocab_size,
)
from minigpt.planning.memory import memory_report
from minigpt.planning.workload import Workload

SELECTIVE_PRICE = "no product of matrices again, only the passes over memory between them"


@dataclass(frozen=True)
class Lever:
    """One change of the configuration and what it does to the peak."""

    override: str
    """For --set."""
    saved_bytes: int
    price: str


def levers(work: Workload, *, tokenizer_vocab_size: int | None) -> list[Lever]:
    """What makes the step smaller, the largest saving first.

    `tokenizer_vocab_size` is the vocabulary to be trained; None where it is given and cannot change.
    """
    changes = [*_of_the_batch(work), *_of_activations(work), *_of_numbers(work)]
    if tokenizer_vocab_size is not None and tokenizer_vocab_size // 2 > 257:
        smaller = tokenizer_vocab_size // 2
        override = f"data.tokenizer.vocab_size={smaller}"
        changes.append(
            (override, replace(work, vocab_size=padded_vocab_size(smaller)), "more tokens for the same text")
        )
    peak = memory_report(work).peak
    found = [
        Lever(override, peak - memory_report(changed).peak, price) for override, changed, price in changes
    ]
    return sorted((lever for lever in found if lever.saved_bytes > 0), key=lambda lever: -lever.saved_bytes)


Change = tuple[str, Workload, str]


def _of_the_batch(work: Workload) -> list[Change]:
    found: list[Change] = []
    half = work.micro_batch_size // 2
    if half:
        price = "none on a CPU, some on a GPU that is not full then: the same step, accumulated"
        changed = replace(work, micro_batch_size=half, accumulates=True)
        found.append((f"training.micro_batch_size={half}", changed, price))
    length = work.model.context_length // 2
    if length >= 2:
        shorter = work.model.model_copy(update={"context_length": length})
        less = 1 - flops_per_token(shorter, work.vocab_size) / flops_per_token(work.model, work.vocab_size)
        price = f"saves {less:.0%} of the arithmetic, and the model sees half as far back"
        found.append((f"model.context_length={length}", replace(work, model=shorter), price))
    return found


def _of_activations(work: Workload) -> list[Change]:
    found: list[Change] = []
    if work.recompute == "off":
        changed = replace(work, recompute="selective")
        found.append(("training.activation_checkpointing=selective", changed, SELECTIVE_PRICE))
    if work.recompute != "full":
        price = f"{recomputed_fraction(work):.0%} more arithmetic"
        found.append(("training.activation_checkpointing=full", replace(work, recompute="full"), price))
    if not work.compiled and work.device_type != "mps":
        found.append(("training.compile=on", replace(work, compiled=True), "none: faster after a minute"))
    return found


def _of_numbers(work: Workload) -> list[Change]:
    found: list[Change] = []
    if work.precision == "off":
        price = "none where the hardware multiplies bf16: there it is faster"
        found.append(("training.mixed_precision=bf16", replace(work, precision="bf16"), price))
    if work.optimizer == "adamw":
        price = "other training: its own learning rate, and a step that takes longer"
        found.append(("optimizer.name=muon", replace(work, optimizer="muon"), price))
    return found


def recomputed_fraction(work: Workload) -> float:
    """The arithmetic of a second forward pass through the blocks over that of the whole step."""
    model = work.model
    forward = 2 * num_matrix_parameters(model) + attention_flops_per_token(model) / 3
    return forward / flops_per_token(model, work.vocab_size)
