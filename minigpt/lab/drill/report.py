"""A drill's score for people (Markdown, aligned) and for programs (JSON)."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from minigpt.atomic import write_text_atomically
from minigpt.lab.drill.score import Score
from minigpt.lab.drill.targets import targets
from minigpt.lab.drill.verdict import Verdict

HARMLESS = 0.03
"""Nats a token of test loss under which a fault has done no harm within its training."""


def markdown(score: Score) -> str:
    """The whole report."""
    parts = [
        "# The monitor's drill",
        "\n".join(f"- {target.line()}" for target in targets(score)),
        "## In numbers",
        _table(("what", "value"), _numbers(score)),
        "## Beside other rules, on the same trainings",
        "Any alarm of theirs counts as the right one.",
        _table(("rule", "recall", f"within {60} steps", "false events / 10k steps"), _comparison(score)),
        "## Faults",
        _table(
            ("fault", "noticed", "delay", "first right", "last right", "duration", "harm", "first words"),
            _fault_rows(score),
        ),
        "## False interruptions",
        _table(("control", "seed", "step", "finding"), _alarm_rows(score)) if _alarm_rows(score) else "None.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def write_report(score: Score, folder: Path) -> None:
    """drill.md and drill.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / "drill.md", markdown(score))
    content = {
        "targets": [{**asdict(target), "is_met": target.is_met} for target in targets(score)],
        "numbers": dict(_numbers(score)),
        "baselines": [asdict(other) for other in score.baselines],
        "verdicts": [
            {**asdict(verdict), "harm": score.harm.get((verdict.fault, verdict.seed))}
            for verdict in score.verdicts
        ],
        "false_alarms": [asdict(alarm) for alarm in score.false_alarms],
        "twins_alarms": [asdict(alarm) for alarm in score.twins_alarms],
        "healthy_steps": score.healthy_steps,
    }
    write_text_atomically(folder / "drill.json", json.dumps(content, indent=1) + "\n")


def _numbers(score: Score) -> list[tuple[str, str]]:
    def delays(slow: bool) -> str:
        found = score.delays(slow=slow)
        return f"{found[0]:.0f} / {found[1]:.0f}" if found else "-"

    return [
        ("trainings with a fault", str(len(score.verdicts))),
        ("recall", f"{score.recall:.3f}"),
        ("recall within 60 steps", f"{score.recall_prompt:.3f}"),
        ("right cause, first word", f"{score.first_right:.3f}"),
        ("right cause, last word", f"{score.final_right:.3f}"),
        ("transient told from lasting", f"{score.duration_right:.3f}"),
        ("delay p50 / p90, abrupt", delays(slow=False)),
        ("delay p50 / p90, slow", delays(slow=True)),
        ("healthy steps", f"{score.healthy_steps:,}"),
        ("false interruptions", str(len(score.false_alarms))),
        ("false interruptions per 10,000 steps", _false_rate(score)),
        ("false interruptions of the faults' clean trainings", str(len(score.twins_alarms))),
        ("interruptions before an onset", str(sum(verdict.too_early for verdict in score.verdicts))),
        ("microseconds per observe", f"{score.microseconds:.0f}"),
    ]


def _false_rate(score: Score) -> str:
    if score.false_alarms:
        return f"{score.false_per_10k:.2f}"
    return f"0 (so under {score.false_bound_per_10k:.2f}, at 95 %)"


def _comparison(score: Score) -> list[tuple[str, ...]]:
    rows = [
        (other.name, f"{other.recall:.2f}", f"{other.recall_prompt:.2f}", f"{other.false_per_10k:.1f}")
        for other in score.baselines
    ]
    own = (f"{score.recall:.2f}", f"{score.recall_prompt:.2f}", f"{score.false_per_10k:.1f}")
    return [*rows, ("this monitor", *own)]


def _fault_rows(score: Score) -> list[tuple[str, ...]]:
    by_name: dict[str, list[Verdict]] = {}
    for verdict in score.verdicts:
        by_name.setdefault(verdict.fault, []).append(verdict)
    return [_fault_row(name, verdicts, score) for name, verdicts in by_name.items()]


def _fault_row(name: str, verdicts: Sequence[Verdict], score: Score) -> tuple[str, ...]:
    count = len(verdicts)

    def share(which: str) -> str:
        return f"{sum(getattr(verdict, which) for verdict in verdicts)}/{count}"

    delays = [str(verdict.delay) for verdict in verdicts if verdict.delay is not None]
    harms = [score.harm[name, v.seed] for v in verdicts if (name, v.seed) in score.harm]
    first = next((verdict.first for verdict in verdicts if not verdict.first_right), verdicts[0].first)
    return (
        name,
        share("noticed"),
        " ".join(delays) or "-",
        share("first_right"),
        share("final_right"),
        share("duration_right"),
        _harm(harms),
        first or "nothing",
    )


def _alarm_rows(score: Score) -> list[tuple[str, ...]]:
    alarms = (*score.false_alarms, *score.twins_alarms)
    return [(alarm.control, str(alarm.seed), str(alarm.step), alarm.finding) for alarm in alarms]


def _harm(harms: Sequence[float]) -> str:
    if not harms:
        return "?"
    mean = sum(harms) / len(harms)
    if mean != mean:
        return "NaN"
    return f"{mean:+.2f}" if mean >= HARMLESS else f"{mean:+.2f} (none yet)"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    widths = [max(len(row[index]) for row in (heads, *rows)) for index in range(len(heads))]
    lines = [heads, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
