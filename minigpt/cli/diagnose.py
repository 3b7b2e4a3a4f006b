"""`minigpt diagnose`: what the monitor makes of a run that is over, or that others made."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from minigpt.cli.options import path_of
from minigpt.errors import MiniGPTError, RecordError

if TYPE_CHECKING:
    from minigpt.config.run_config import RunConfig
    from minigpt.training_monitor.config import MonitorConfig
    from minigpt.training_monitor.records.record import Note
    from minigpt.training_monitor.records.timeline import Timeline
    from minigpt.training_monitor.run_facts import RunFacts

PathArgument = Annotated[
    Path,
    typer.Argument(parser=path_of, metavar="PATH", help="A run's folder, or a record of one: see above."),
]


def diagnose(
    path: PathArgument,
    language: Annotated[
        Literal["en", "zh"] | None,
        typer.Option("--language", help="Language of the report.", show_default="the run's own, or en"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict for programs.")] = False,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="FIELD=NAME,...",
            help="Which column, key or tag holds step, loss, grad_norm, lr: loss=my_loss,grad_norm=my_norm.",
            show_default="by their usual names",
        ),
    ] = None,
    run: Annotated[
        int | None,
        typer.Option(
            "--run", metavar="N", help="Which of several runs in one file, from 1.", show_default="the last"
        ),
    ] = None,
) -> None:
    """Judges a recorded run: verdict, causes, what to do, and what is normal for it.

    PATH is a MiniGPT run's folder or metrics.jsonl, a training.log, a Hugging Face run's folder or
    trainer_state.json, a CSV (Lightning's metrics.csv), JSON lines, or a TensorBoard folder.
    Exit code: 0 healthy, 3 watch, 4 sick, 2 wrong usage.

    \b
    minigpt diagnose checkpoints/pretrain_small
    minigpt diagnose logs/training.log --run 2
    minigpt diagnose outputs/checkpoint-500/trainer_state.json --language zh
    minigpt diagnose metrics.csv --columns loss=my_loss,grad_norm=my_norm
    minigpt diagnose checkpoints/pretrain_small --json | jq .verdict
    """
    import json

    from tqdm import tqdm

    from minigpt.training_monitor.records.record import Options, UnreadableRecordError
    from minigpt.training_monitor.records.registry import open_record
    from minigpt.training_monitor.report.plain import plain
    from minigpt.training_monitor.report.text import report_lines
    from minigpt.training_monitor.verdict import judge

    try:
        timeline = open_record(path, Options(_columns(columns), run))
    except UnreadableRecordError as error:
        raise RecordError(str(error)) from None
    timeline, rules, facts = _setting(timeline)
    rules = replace(rules, language=language or rules.language)
    verdict = judge(
        timeline,
        rules,
        facts,
        watch=lambda steps: tqdm(
            steps, "diagnosing", timeline.count, unit="step", leave=False, disable=not sys.stderr.isatty()
        ),
    )
    spoken = rules.language
    if as_json:
        typer.echo(json.dumps(plain(verdict, spoken), ensure_ascii=False, indent=2, allow_nan=False))
    else:
        for line in report_lines(verdict, spoken):
            typer.echo(line)
    raise typer.Exit(verdict.exit_code)


def _columns(text: str | None) -> dict[str, str]:
    """field=name,field=name as a mapping."""
    from minigpt.training_monitor.records.names import FIELDS

    columns: dict[str, str] = {}
    for part in text.split(",") if text else ():
        field, equals, name = (piece.strip() for piece in part.partition("="))
        if not (equals and name and field in FIELDS):
            raise RecordError(
                f"--columns {part}: wanted FIELD=NAME with one of the fields {', '.join(FIELDS)}, such as loss=my_loss"
            )
        columns[field] = name
    return columns


def _setting(timeline: "Timeline") -> "tuple[Timeline, MonitorConfig, RunFacts | None]":
    """The record with the rules and facts of the run's own configuration; without one, the defaults.

    A configuration of another version may have other rules: then all of it but them is used.
    """
    from minigpt.config.load import validated
    from minigpt.config.yaml_text import Written, read_mapping
    from minigpt.training_monitor.config import MonitorConfig
    from minigpt.training_monitor.records.record import Note

    path = timeline.source.config_path
    if path is None:
        return timeline, MonitorConfig(), None
    try:
        written = read_mapping(path.read_text(encoding="utf-8-sig", errors="replace"), str(path))
    except MiniGPTError as error:
        return _noted(timeline, Note("config", {"problem": _first_line(error)})), MonitorConfig(), None
    try:
        config = validated(written)
        return timeline, config.monitor, _facts(config)
    except MiniGPTError as error:
        problem = _first_line(error)
    try:
        config = validated(
            Written(
                {name: value for name, value in written.values.items() if name != "monitor"}, written.places
            )
        )
    except MiniGPTError:
        return _noted(timeline, Note("config", {"problem": problem})), MonitorConfig(), None
    return _noted(timeline, Note("rules", {"problem": problem})), MonitorConfig(), _facts(config)


def _noted(timeline: "Timeline", note: "Note") -> "Timeline":
    """With the note; what a monitor of another version watched cannot be told."""
    source = replace(timeline.source, watched_live=False)
    return replace(timeline, source=source, notes=(*timeline.notes, note))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _facts(config: "RunConfig") -> "RunFacts":
    from minigpt.config.facts import facts_of

    precision, tokenizer = config.training.mixed_precision, config.data.tokenizer
    return facts_of(
        config,
        precision=None if precision == "auto" else precision,
        vocab_size=tokenizer.vocab_size if tokenizer.kind == "bpe" else None,
    )
