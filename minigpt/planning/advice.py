"""A memory report for people: the parts as a table, and what would make it smaller."""

from dataclasses import dataclass, replace

from minigpt.model.count import padded_vocab_size
from minigpt.planning.memory import MemoryReport, Workload, memory_report
from minigpt.planning.plan import bytes_text


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
    changes: list[tuple[str, Workload, str]] = []
    half = work.micro_batch_size // 2
    if half:
        price = "none: the gradients are accumulated to the same step, a little slower on a GPU"
        changes.append((f"training.micro_batch_size={half}", replace(work, micro_batch_size=half), price))
    if not work.activation_checkpointing:
        price = "about a third more time"
        changes.append(
            ("training.activation_checkpointing=on", replace(work, activation_checkpointing=True), price)
        )
    if work.precision == "off":
        price = "none where the hardware multiplies bf16, where it is faster as well"
        changes.append(("training.mixed_precision=bf16", replace(work, precision="bf16"), price))
    if tokenizer_vocab_size is not None and tokenizer_vocab_size // 2 > 257:
        smaller = tokenizer_vocab_size // 2
        price = "more tokens for the same text"
        changes.append(
            (
                f"data.tokenizer.vocab_size={smaller}",
                replace(work, vocab_size=padded_vocab_size(smaller)),
                price,
            )
        )
    peak = memory_report(work).peak
    found = [
        Lever(override, peak - memory_report(changed).peak, price) for override, changed, price in changes
    ]
    return sorted((lever for lever in found if lever.saved_bytes > 0), key=lambda lever: -lever.saved_bytes)


def table(report: MemoryReport) -> list[str]:
    """The parts of the peak, aligned, each with its share."""
    rows = [(name, bytes_text(size), f"{size / report.peak:.0%}") for name, size in report.parts()]
    rows.append(("peak", bytes_text(report.peak), "100%"))
    width = max(len(name) for name, _, _ in rows)
    lines = [f"  {name:{width}}  {size:>9}  {share:>5}" for name, size, share in rows]
    lines.insert(-1, f"  {'-' * (width + 18)}")
    return [*lines, f"  {'a checkpoint on disk':{width}}  {bytes_text(report.checkpoint_file):>9}"]


def verdict(report: MemoryReport, available_bytes: int | None) -> str:
    """Whether it fits, in words."""
    if available_bytes is None:
        return "This system does not tell how much memory is available."
    share = report.peak / available_bytes
    amount = f"{bytes_text(available_bytes)} available here"
    if share > 1:
        return f"{amount}: does not fit, {bytes_text(report.peak - available_bytes)} too much."
    return f"{amount}: fits, with {share:.0%} of it in use" + (" - close." if share > 0.9 else ".")


def advice_lines(
    work: Workload, available_bytes: int | None, *, tokenizer_vocab_size: int | None
) -> list[str]:
    """The table, the verdict and the levers, ready to print."""
    report = memory_report(work)
    found = levers(work, tokenizer_vocab_size=tokenizer_vocab_size)
    heading = (
        "What makes it smaller (--set ...):" if found else "What makes it smaller: nothing but another model."
    )
    lines = [*table(report), "", verdict(report, available_bytes), "", heading]
    width = max((len(lever.override) for lever in found), default=0)
    lines += [
        f"  {lever.override:{width}}  saves {bytes_text(lever.saved_bytes):>9}; price: {lever.price}"
        for lever in found
    ]
    lines += ["", "Eager code is counted, tensor by tensor; compiled code saves fewer activations."]
    return lines
