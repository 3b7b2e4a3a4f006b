"""A verdict as a page for people: the answer first, then what it rests on."""

from collections import Counter
from collections.abc import Iterator
from math import isfinite

from minigpt.training_monitor.report.columns import padded, table, width
from minigpt.training_monitor.report.curve import WIDTH
from minigpt.training_monitor.report.episodes import Episode
from minigpt.training_monitor.report.summary import Phase
from minigpt.training_monitor.report.words import WORDS, Words
from minigpt.training_monitor.verdict import FEW_STEPS, Verdict

MOST_LINES = 14
"""Episodes of the timeline that are shown one by one."""
MOST_CAUSES = 3


def report_lines(verdict: Verdict, language: str) -> list[str]:
    """The report in "en" or "zh"."""
    words = WORDS[language]
    sections = (
        _head(verdict, words),
        _curves(verdict, words),
        _causes(verdict, words),
        _timeline(verdict, words),
        _bands(verdict, words),
        _numbers(verdict, words),
        _missing(verdict, words),
        _notes(verdict, words),
    )
    lines: list[str] = []
    for section in sections:
        text = list(section)
        if text:
            lines += [*text, ""]
    return lines[:-1]


def reason_texts(verdict: Verdict, language: str) -> list[str]:
    """Why the verdict is what it is."""
    words = WORDS[language]
    return [words[f"reason.{reason.key}"].format(**reason.values) for reason in verdict.reasons]


def note_texts(verdict: Verdict, language: str) -> list[str]:
    """What to know about the record."""
    words = WORDS[language]
    return [words[f"note.{note.key}"].format(**note.values) for note in verdict.notes]


def _head(verdict: Verdict, words: Words) -> Iterator[str]:
    timeline, summary = verdict.timeline, verdict.summary
    facts = [words["steps"].format(count=f"{summary.count:,}", first=timeline.first, last=timeline.last)]
    if summary.seconds:
        facts.append(words["duration"].format(duration=_duration(summary.seconds)))
    yield f"{timeline.source.kind}: {timeline.source.path}"
    yield words["separator"].join(facts)
    yield ""
    yield words["verdict"].format(health=words[verdict.health])
    language = "zh" if words is WORDS["zh"] else "en"
    for text in reason_texts(verdict, language)[:8] or [words["reason.nothing"]]:
        yield f"  {text}"
    if verdict.health == "healthy" and summary.count < FEW_STEPS:
        yield f"  {words['note.few'].format(count=summary.count)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _curves(verdict: Verdict, words: Words) -> Iterator[str]:
    summary = verdict.summary
    label = max(width(words[name]) for name in ("loss", "grad_norm", "trouble")) + 2
    if summary.first_loss is not None and summary.last_loss is not None:
        text = words["loss.line"].format(first=_loss(summary.first_loss), last=_loss(summary.last_loss))
        if isfinite(summary.lowest_loss):
            text += words["loss.lowest"].format(
                lowest=_loss(summary.lowest_loss), step=summary.lowest_loss_at
            )
        yield f"{padded(words['loss'], label)}{summary.loss_curve.line().ljust(WIDTH)}  {text}"
    if summary.last_norm is not None:
        curve = summary.norm_curve
        text = (
            words["norm.line"].format(low=f"{curve.low:.3g}", high=f"{curve.high:.3g}") if curve.high else ""
        )
        yield f"{padded(words['grad_norm'], label)}{curve.line().ljust(WIDTH)}  {text}"
    marks = _marks(verdict)
    if marks.strip():
        yield f"{padded(words['trouble'], label)}{marks}  {words['trouble.legend']}"
    evaluations = verdict.timeline.source.evaluations
    if evaluations:
        best = min(evaluations, key=lambda evaluation: evaluation.loss)
        text = words["validation"].format(last=_loss(evaluations[-1].loss), step=evaluations[-1].step)
        if best != evaluations[-1]:
            text += words["validation.best"].format(best=_loss(best.loss), best_step=best.step)
        yield text


def _loss(value: float) -> str:
    return f"{value:.4g}"


def _marks(verdict: Verdict) -> str:
    """Where findings were, under the curves."""
    curve = verdict.summary.loss_curve
    marks = [" "] * WIDTH
    for episode in sorted(verdict.episodes.all, key=_is_grave):
        end = verdict.timeline.last if episode.is_open else episode.opened_at + max(episode.length, 1) - 1
        for place in range(curve.place(episode.opened_at), curve.place(end) + 1):
            marks[place] = "█" if _is_grave(episode) else "!"
    return "".join(marks)


def _is_grave(episode: Episode) -> bool:
    return episode.lasted or episode.interrupted


def _bands(verdict: Verdict, words: Words) -> Iterator[str]:
    phases = [phase for phase in verdict.summary.phases if phase.count]
    if not phases or verdict.summary.count < FEW_STEPS:
        return
    clipping = bool(verdict.summary.clipped)
    heads = [words[f"bands.{name}"] for name in ("phase", "steps", "loss", "band", "median")]
    rows = [heads + ([words["bands.clipped"]] if clipping else [])]
    rows += [_band_row(phase, words, clipping) for phase in phases]
    yield words["bands.title"]
    yield from (f"  {line}" for line in table(rows))


def _band_row(phase: Phase, words: Words, clipping: bool) -> list[str]:
    band, loss = phase.band(), phase.losses.quantile(0.5)
    row = [
        words[f"phase.{phase.name}"],
        f"{phase.first}-{phase.last}",
        "-" if loss is None else _loss(loss),
        "-" if band is None else f"{band[0]:.3g} - {band[2]:.3g}",
        "-" if band is None else f"{band[1]:.3g}",
    ]
    return [*row, f"{phase.clipped / phase.count:.0%}"] if clipping else row


def _timeline(verdict: Verdict, words: Words) -> Iterator[str]:
    episodes = sorted(verdict.episodes.all, key=lambda episode: episode.opened_at)
    grave = [episode for episode in episodes if _is_grave(episode) or episode.is_open]
    quiet = [episode for episode in episodes if not (_is_grave(episode) or episode.is_open)]
    shown = grave[:MOST_LINES] + quiet[: max(0, MOST_LINES - len(grave))]
    rows = [
        (episode.opened_at, [_when(episode, words), episode.name, _what(episode, words)]) for episode in shown
    ]
    for event in verdict.timeline.source.events:
        if event.kind == "resume" or (event.kind == "action" and event.name == "stop"):
            when = words["timeline.step"].format(first=event.step)
            rows.append((event.step, [when, words[f"timeline.{event.name}"], event.text.split("\n")[0]]))
    rows.sort(key=lambda row: row[0])
    yield words["timeline.title"]
    if not rows:
        yield f"  {words['timeline.none']}"
        return
    yield from (f"  {line}" for line in table([row for _, row in rows]))
    told = Counter(episode.name for episode in shown if not _is_grave(episode) and not episode.is_open)
    rest = verdict.episodes.transients - Counter(e.name for e in grave if e.status == "transient") - told
    if rest:
        names = ", ".join(f"{name} x {count}" for name, count in rest.most_common())
        yield f"  {words['timeline.more'].format(count=sum(rest.values()), names=names)}"


def _when(episode: Episode, words: Words) -> str:
    if episode.is_open and episode.lasted:
        return words["timeline.open"].format(first=episode.opened_at)
    last = episode.opened_at + max(episode.length, 1) - 1
    key = "timeline.step" if last == episode.opened_at else "timeline.steps"
    return words[key].format(first=episode.opened_at, last=last)


def _what(episode: Episode, words: Words) -> str:
    key = "seen" if episode.status == "suspected" and episode.interrupted else episode.status
    text = words[f"status.{key}"].format(length=episode.length, at=episode.at)
    return text + (words["status.live"] if episode.live else "")


def _causes(verdict: Verdict, words: Words) -> Iterator[str]:
    worst = verdict.episodes.worst()
    if not worst:
        return
    yield words["causes.title"]
    # In the order of time: what came first may have caused the rest.
    for episode in sorted(worst[:MOST_CAUSES], key=lambda episode: episode.opened_at):
        yield from (f"  {line}" for line in episode.lines)
    if len(worst) > MOST_CAUSES:
        yield f"  {words['causes.more'].format(count=len(worst) - MOST_CAUSES)}"


def _numbers(verdict: Verdict, words: Words) -> Iterator[str]:
    summary = verdict.summary
    lines: list[str] = []
    if summary.clipped_share is not None and (summary.clipped or summary.max_grad_norm is not None):
        text = words["numbers.clipped"].format(share=f"{summary.clipped_share:.0%}")
        limit = summary.max_grad_norm
        lines.append(text + (words["numbers.limit"].format(limit=f"{limit:g}") if limit is not None else ""))
    if summary.skipped:
        lines.append(words["numbers.skipped"].format(count=summary.skipped))
    if summary.non_finite:
        lines.append(words["numbers.non_finite"].format(count=summary.non_finite))
    early, late = (speed.quantile(0.5) for speed in (summary.early_speed, summary.late_speed))
    if early is not None and late is not None:
        lines.append(words["numbers.speed"].format(early=f"{early:,.0f}", late=f"{late:,.0f}"))
    if lines:
        yield words["numbers.title"]
        yield from (f"  {line}" for line in lines)


def _missing(verdict: Verdict, words: Words) -> Iterator[str]:
    rows: list[list[str]] = []
    live: list[str] = []
    for group in verdict.not_judged:
        if group.told_live:
            live += group.findings
        elif group.missing:
            fields = words["fields.separator"].join(
                words.get(f"field.{name}", name) for name in group.missing
            )
            rows.append([fields, ", ".join(group.findings)])
    off = [name for group in verdict.not_judged if not group.missing for name in group.findings]
    if rows:
        yield words["missing.title"]
        yield from (f"  {line}" for line in table(rows))
    if live:
        yield words["missing.live"]
        yield f"  {', '.join(live)}"
    if off:
        yield words["missing.off"].format(findings=", ".join(off))


def _notes(verdict: Verdict, words: Words) -> Iterator[str]:
    # Too few steps to call a run healthy stands at the top already.
    notes = [note for note in verdict.notes if not (note.key == "few" and verdict.health == "healthy")]
    if notes:
        yield words["notes.title"]
        for note in notes:
            yield f"  {words[f'note.{note.key}'].format(**note.values)}"
