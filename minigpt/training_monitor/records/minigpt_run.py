"""A MiniGPT run's folder: metrics.jsonl with the run's own events, evaluations and configuration."""

from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from minigpt.training_monitor.records import json_lines
from minigpt.training_monitor.records.names import LARGEST, number
from minigpt.training_monitor.records.record import Evaluation, Options, PastEvent, Source
from minigpt.training_monitor.sinks.json_lines import read_json_lines

METRICS, EVENTS, CONFIG = "metrics.jsonl", "events.jsonl", "config.yaml"


def find(path: Path) -> Path | None:
    """The metrics.jsonl of a run's folder (given as the folder or as the file)."""
    metrics = path / METRICS if path.is_dir() else path
    return metrics if metrics.name == METRICS and metrics.is_file() and metrics.stat().st_size else None


def read(path: Path, options: Options) -> Source:
    """The steps of the run, and what its monitor said while it ran."""
    source = json_lines.read(path, options)
    folder = path.parent
    config, events = folder / CONFIG, folder / EVENTS
    records = list(read_json_lines(events)) if events.is_file() else []
    standing = [record for record in records if not record.get("superseded")]
    return replace(
        source,
        kind="MiniGPT run" if config.is_file() or records else source.kind,
        path=folder if config.is_file() else path,
        evaluations=tuple(_evaluations(standing)),
        events=tuple(event for record in standing if (event := _event(record)) is not None),
        config_path=config if config.is_file() else None,
        watched_live=bool(records),
        is_minigpt=source.is_minigpt or config.is_file(),
    )


def _evaluations(records: list[dict[str, Any]]) -> list[Evaluation]:
    found = [
        (record.get("step"), number(_data(record).get("loss")))
        for record in records
        if record.get("kind") == "evaluation"
    ]
    return [
        Evaluation(step, loss)
        for step, loss in found
        if isinstance(step, int) and abs(step) < LARGEST and loss is not None and isfinite(loss)
    ]


def _data(record: dict[str, Any]) -> dict[str, Any]:
    data = record.get("data")
    return data if isinstance(data, dict) else {}


def _event(record: dict[str, Any]) -> PastEvent | None:
    step = record.get("step")
    if (
        not isinstance(step, int)
        or abs(step) >= LARGEST
        or record.get("kind") not in ("anomaly", "action", "resume", "note")
    ):
        return None
    return PastEvent(
        step,
        str(record["kind"]),
        str(record.get("name", "")),
        str(record.get("text", "")),
        bool(record.get("interrupts")),
        _data(record),
    )
