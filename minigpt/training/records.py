"""Where a run's record goes: console, log, metrics, events, TensorBoard, and wandb where it is asked for."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from minigpt.errors import CheckpointError, ConfigError, MissingExtraError
from minigpt.training.folder import EVENTS_NAME, METRICS_NAME, TENSORBOARD_NAME
from minigpt.training.run import Run
from minigpt.training_monitor.sinks.console import ConsoleSink
from minigpt.training_monitor.sinks.events import EventsSink
from minigpt.training_monitor.sinks.fan_out import FanOut
from minigpt.training_monitor.sinks.guarded import Guarded
from minigpt.training_monitor.sinks.incident_curves import IncidentCurvesSink
from minigpt.training_monitor.sinks.log_file import LogFileSink
from minigpt.training_monitor.sinks.metrics import MetricsSink
from minigpt.training_monitor.sinks.protocol import Sink
from minigpt.training_monitor.sinks.tensorboard import TensorBoardSink
from minigpt.training_monitor.sinks.wandb import WandbSink

LOG_FILE = Path("logs/training.log")
KEPT = "what is missing is kept in memory and written later"


class Remembering(Protocol):
    """A sink whose next lines depend on those before."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def open_records(run: Run, stack: ExitStack) -> None:
    """Give the run its sinks: new ones, or cut back to the step that it resumes from. `stack` closes them."""
    if run.world.is_main:
        # Those that the run has by then: a rollback gives it new ones.
        stack.callback(lambda: run.sinks.close())
        run.sinks = open_sinks(run)


class Records(FanOut):
    """The run's sinks, and what a checkpoint holds of them."""

    def __init__(
        self, metrics: MetricsSink, events: EventsSink, curves: dict[str, Remembering], sinks: list[Sink]
    ) -> None:
        super().__init__(sinks)
        self._files: dict[str, MetricsSink | EventsSink] = {METRICS_NAME: metrics, EVENTS_NAME: events}
        self._remembering = {"events": events, **curves}

    def mark(self) -> dict[str, Any]:
        """What the disk has of the records for certain, and what the sinks have to remember."""
        return {
            "records": {name: file.digest() for name, file in self._files.items()},
            "sinks": {name: sink.state_dict() for name, sink in self._remembering.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        for name, sink in self._remembering.items():
            if name in state:
                sink.load_state_dict(state[name])


def flush_records(run: Run) -> dict[str, Any]:
    """Everything told so far is on the disk when this returns: what a checkpoint may say of it.

    Raises:
        OSError: it is not; it is kept and written later.
    """
    run.sinks.flush()
    return run.sinks.mark() if isinstance(run.sinks, Records) else {}


def open_sinks(run: Run) -> Sink:
    """The records of the run, cut back to its present step.

    Raises:
        CheckpointError: the disk refuses.
    """
    try:
        return _opened_sinks(run)
    except OSError as error:
        raise CheckpointError(
            f"cannot write the records of the run: {error.filename or run.run_dir}: {error.strerror}; make it "
            "writable, or choose another folder with --run-dir"
        ) from error


def _opened_sinks(run: Run) -> Records:
    # First, because it may fail, and the files of a run that does not begin stay as they are.
    wandb = _wandb_sinks(run)
    step, curves = run.position.step, run.run_dir / TENSORBOARD_NAME
    metrics = MetricsSink(run.run_dir / METRICS_NAME, keep_through=step)
    events = EventsSink(run.run_dir / EVENTS_NAME, keep_through=step, keep_bytes=run.events_bytes)
    tensorboard = TensorBoardSink(curves, keep_through=step)
    incidents = IncidentCurvesSink(curves, keep_through=step)
    console = ConsoleSink(lambda line: _say(run, line), show_steps=not run.progress.has_bar)
    log = LogFileSink(LOG_FILE)
    records = Records(
        metrics,
        events,
        {"tensorboard": tensorboard, "incident_curves": incidents},
        [
            Guarded(lambda: console, "the terminal", "its lines stand in logs/training.log"),
            Guarded(lambda: log, str(LOG_FILE), KEPT),
            Guarded(lambda: metrics, METRICS_NAME, KEPT, vouched=True),
            Guarded(lambda: events, EVENTS_NAME, KEPT, vouched=True),
            Guarded(lambda: tensorboard, f"TensorBoard's {TENSORBOARD_NAME}", KEPT),
            Guarded(lambda: incidents, "TensorBoard's curves of an incident", KEPT),
            *wandb,
        ],
    )
    records.restore(run.sinks_state)
    # Only once: sinks that are opened later in the run have nothing to do with that checkpoint.
    run.sinks_state = {}
    return records


def _say(run: Run, line: str) -> None:
    run.progress.say(line)
    if run.progress.trouble is not None:
        raise run.progress.trouble


def record_differences(run: Run, state: dict[str, Any]) -> list[str]:
    """A line where metrics.jsonl, cut back to the checkpoint's step, is not what the checkpoint vouches for."""
    vouched = state.get("records", {}).get(METRICS_NAME)
    if vouched is None or not isinstance(run.sinks, Records):
        return []
    found = run.sinks.mark()["records"][METRICS_NAME]
    if found == vouched:
        return []
    return [
        f"{run.run_dir / METRICS_NAME} is not what the checkpoint vouches for: its first {found['bytes']:,} bytes are "
        f"another record than the {vouched['bytes']:,} bytes of then; the run goes on, its record has a flaw"
    ]


def _wandb_sinks(run: Run) -> list[Sink]:
    """The sink for Weights & Biases, where the configuration names a project."""
    config = run.monitor.config.wandb
    if config.project is None:
        return []
    try:
        sink = WandbSink(config, run.run_dir, group=run.name, run_config=run.identity["config"])
    except ImportError as error:
        raise MissingExtraError(f"monitor.wandb.project = {config.project}", "wandb", "wandb") from error
    except RuntimeError as error:
        raise ConfigError(str(error)) from error
    return [Guarded(lambda: sink, "Weights & Biases", "what it is told meanwhile is missing there")]
