"""Where a run's record goes: console, log, metrics, events, TensorBoard, and wandb where it is asked for."""

from contextlib import ExitStack
from pathlib import Path

from minigpt.errors import ConfigError, MissingExtraError
from minigpt.training.folder import EVENTS_NAME, METRICS_NAME, TENSORBOARD_NAME
from minigpt.training.run import Run
from minigpt.training_monitor.sinks.console import ConsoleSink
from minigpt.training_monitor.sinks.events import EventsSink
from minigpt.training_monitor.sinks.fan_out import FanOut
from minigpt.training_monitor.sinks.incident_curves import IncidentCurvesSink
from minigpt.training_monitor.sinks.json_lines import read_json_lines
from minigpt.training_monitor.sinks.log_file import LogFileSink
from minigpt.training_monitor.sinks.metrics import MetricsSink
from minigpt.training_monitor.sinks.protocol import Sink
from minigpt.training_monitor.sinks.tensorboard import TensorBoardSink
from minigpt.training_monitor.sinks.wandb import WandbSink

LOG_FILE = Path("logs/training.log")


def open_records(run: Run, stack: ExitStack) -> None:
    """Give the run its sinks: new ones, or cut back to the step that it resumes from. `stack` closes them."""
    if run.world.is_main:
        # Those that the run has by then: a rollback gives it new ones.
        stack.callback(lambda: run.sinks.close())
        run.sinks = open_sinks(run)


def open_sinks(run: Run) -> Sink:
    """The records of the run, cut back to its present step."""
    # First, because it may fail, and the files of a run that does not begin stay as they are.
    wandb = _wandb_sinks(run)
    step, metrics_path = run.position.step, run.run_dir / METRICS_NAME
    metrics = MetricsSink(metrics_path, keep_through=step)
    sinks: list[Sink] = [
        ConsoleSink(run.progress.say, show_steps=not run.progress.has_bar),
        LogFileSink(LOG_FILE),
        metrics,
        EventsSink(run.run_dir / EVENTS_NAME, keep_through=step),
        TensorBoardSink(
            run.run_dir / TENSORBOARD_NAME,
            keep_through=step,
            clipped_before=[bool(record["clipped"]) for record in read_json_lines(metrics_path)],
        ),
        IncidentCurvesSink(run.run_dir / TENSORBOARD_NAME, keep_through=step),
    ]
    return FanOut([*sinks, *wandb])


def _wandb_sinks(run: Run) -> list[Sink]:
    """The sink for Weights & Biases, where the configuration names a project."""
    config = run.monitor.config.wandb
    if config.project is None:
        return []
    try:
        return [WandbSink(config, run.run_dir, group=run.name, run_config=run.identity["config"])]
    except ImportError as error:
        raise MissingExtraError(f"monitor.wandb.project = {config.project}", "wandb", "wandb") from error
    except RuntimeError as error:
        raise ConfigError(str(error)) from error
