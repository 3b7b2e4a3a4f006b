"""What was measured, as Markdown that a terminal shows as well."""

from collections.abc import Sequence

from minigpt.lab.bench.match import Entry, Match
from minigpt.lab.bench.summary import (
    Spread,
    best_peer,
    doubts,
    last_loss,
    mfu,
    ratios,
    share_of_ceiling,
    spread,
    tokens_per_second,
)


def report(match: Match) -> str:
    """Title, the contenders' table, the ratios' table, doubts."""
    head = _HEAD if match.peak_flops is None else (*_HEAD, "MFU")
    parts = [_title(match), table(head, [_row(match, entry) for entry in match.entries])]
    if match.ceilings:
        ceiling = _spread(spread(match.ceilings).scaled(1e-9), "{:,.0f}")
        parts.append(
            f"Ceiling: {ceiling} GFLOP/s, the best matrix product in the same rounds. Medians; half of the rounds lie "
            "within the brackets."
        )
        compared = _ratios(match)
        parts += [compared] if compared else []
    parts += [f"DOUBT: {line}" for line in doubts(match)]
    return "\n\n".join(parts)


_HEAD = ("contender", "tokens/s", "of the ceiling", "first step after", "peak memory", "parameters", "loss")


def _title(match: Match) -> str:
    terms, shape = match.terms, match.terms.shape
    title = (
        f"## {shape.name}: {shape.num_layers} x {shape.hidden_size}, context {shape.context_length}, vocabulary "
        f"{shape.vocab_size}"
    )
    return (
        f"{title}\n\n{terms.precision}, {'compiled' if terms.compile else 'eager'}, {terms.device}, "
        f"{match.threads} threads; "
        f"micro-batch {shape.micro_batch_size} x {shape.grad_accum_steps} = {shape.tokens_per_step} tokens a step; "
        f"{terms.source}; {len(match.ceilings)} rounds, taking turns"
    )


def _row(match: Match, entry: Entry) -> tuple[str, ...]:
    timed = bool(entry.seconds_per_step)
    pace = _spread(spread(tokens_per_second(match, entry)), "{:,.0f}") if timed else "-"
    share = _spread(spread(share_of_ceiling(match, entry)), "{:.2f}") if timed else "-"
    losses = f"{entry.losses[0]:.2f} -> {last_loss(entry):.2f}" if entry.losses else "-"
    memory = "-" if entry.peak_bytes is None else f"{entry.peak_bytes / 2**30:.2f} GiB"
    note = f" ({entry.note})" if entry.note else ""
    of_peak = mfu(match, entry)
    return (
        f"{entry.contender.spec}{note}",
        pace,
        share,
        f"{entry.start_seconds:.1f} s",
        memory,
        f"{entry.parameters / 1e6:.2f} M",
        losses,
        *([] if of_peak is None else [_spread(spread(of_peak), "{:.3f}") if timed else "-"]),
    )


def _ratios(match: Match) -> str | None:
    """How many times faster each MiniGPT is than each other contender; None where there is nothing to compare."""
    ours = [entry for entry in match.entries if entry.contender.is_ours]
    best = best_peer(match)
    others = [entry for entry in match.entries if not entry.contender.is_ours]
    others += ours[:1] if len(ours) > 1 else []
    if not ours or not others:
        return None
    names = [f"{other.contender.spec}{' (best)' if other is best else ''}" for other in others]
    rows = [
        (
            entry.contender.spec,
            *(
                "-" if other is entry else _spread(spread(ratios(match, entry, other)), "{:.3f}")
                for other in others
            ),
        )
        for entry in ours
    ]
    return table(("times as fast as", *names), rows)


def _spread(found: Spread, form: str) -> str:
    low, middle, high = (form.format(value) for value in (found.low, found.median, found.high))
    return f"{middle} ({low} to {high})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, its columns aligned."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [head, *rows]
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
