"""A verdict as plain values, for programs."""

from dataclasses import asdict
from typing import Any

from minigpt.training_monitor.report.summary import Phase
from minigpt.training_monitor.report.text import note_texts, reason_texts
from minigpt.training_monitor.sinks.json_lines import legal
from minigpt.training_monitor.verdict import Verdict


def plain(verdict: Verdict, language: str) -> dict[str, Any]:
    """What `minigpt diagnose --json` prints; non-finite numbers as "NaN", "Infinity", "-Infinity"."""
    timeline, summary = verdict.timeline, verdict.summary
    early, late = (speed.quantile(0.5) for speed in (summary.early_speed, summary.late_speed))
    content = {
        "verdict": verdict.health,
        "exit_code": verdict.exit_code,
        "reasons": [
            {"key": reason.key, **reason.values, "text": text}
            for reason, text in zip(verdict.reasons, reason_texts(verdict, language), strict=True)
        ],
        "record": {
            "kind": timeline.source.kind,
            "path": str(timeline.source.path),
            "first_step": timeline.first,
            "last_step": timeline.last,
            "steps": summary.count,
            "every": timeline.every,
            "notes": note_texts(verdict, language),
        },
        "findings": [asdict(episode) for episode in verdict.episodes.all],
        "transients": dict(verdict.episodes.transients),
        "stopped_at": verdict.stopped_at,
        "loss": {
            "first": summary.first_loss,
            "last": summary.last_loss,
            "lowest_at": summary.lowest_loss_at or None,
        },
        "evaluations": [asdict(evaluation) for evaluation in timeline.source.evaluations],
        "phases": [_phase(phase) for phase in summary.phases if phase.count],
        "clipped_share": summary.clipped_share,
        "updates_skipped": summary.skipped,
        "non_finite_steps": summary.non_finite,
        "tokens_per_second": {"first_quarter": early, "last_quarter": late},
        "not_judged": [asdict(group) for group in verdict.not_judged],
    }
    result = legal(content)
    assert isinstance(result, dict)
    return result


def _phase(phase: Phase) -> dict[str, Any]:
    low, middle, high = phase.band() or (None, None, None)
    return {
        "name": phase.name,
        "first_step": phase.first,
        "last_step": phase.last,
        "steps": phase.count,
        "loss": phase.losses.quantile(0.5),
        "grad_norm": {"low": low, "median": middle, "high": high},
    }
