"""All records of a training in one folder, for a loop of anybody's: none of them ever stops it."""

from pathlib import Path

from minigpt.training_monitor.sinks.events import EventsSink
from minigpt.training_monitor.sinks.guarded import Guarded
from minigpt.training_monitor.sinks.incident_curves import IncidentCurvesSink
from minigpt.training_monitor.sinks.metrics import MetricsSink
from minigpt.training_monitor.sinks.protocol import Sink
from minigpt.training_monitor.sinks.tensorboard import TensorBoardSink

KEPT = "what is missing is kept in memory and written later"


def folder_sinks(folder: Path, start_step: int) -> list[Sink]:
    """metrics.jsonl, events.jsonl and TensorBoard's monitor_logs in `folder`, cut back to `start_step`."""
    curves = folder / "monitor_logs"
    return [
        Guarded(
            lambda: MetricsSink(folder / "metrics.jsonl", keep_through=start_step), "metrics.jsonl", KEPT
        ),
        Guarded(lambda: EventsSink(folder / "events.jsonl", keep_through=start_step), "events.jsonl", KEPT),
        Guarded(lambda: TensorBoardSink(curves, keep_through=start_step), "TensorBoard's monitor_logs", KEPT),
        Guarded(
            lambda: IncidentCurvesSink(curves, keep_through=start_step),
            "TensorBoard's curves of an incident",
            KEPT,
        ),
    ]
