"""Weights & Biases: the monitor's curves, anomalies and alerts, where a team already looks at them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.curves import STATUS_MARKS, step_values
from minigpt.training_monitor.sinks.thinning import Thinning

if TYPE_CHECKING:
    from wandb import Run

FIRST_ROWS = 500
"""Events of one name and status that W&B hears of each; then every 2nd, 4th, ...: its table waits in memory."""
COLUMNS = ("step", "kind", "name", "status", "text")


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases, beside the run's own files. Needs the package wandb."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    project: str | None = None
    """The project that the run appears in; null: W&B is not used."""
    mode: Literal["online", "offline"] = "online"
    """offline: nothing leaves the machine; `wandb sync` sends the folder later."""
    entity: str | None = None
    """The user or team; null: the default of who is logged in."""

    def __post_init__(self) -> None:
        require(self.project is None or bool(self.project.strip()), "wandb.project", "''", "a name, or null")
        require(self.mode in ("online", "offline"), "wandb.mode", self.mode, "online or offline")


class WandbSink:
    """Every step's curves, a mark and a table row for each anomaly and action, an alert for what interrupts.

    A resumed training is a new W&B run of the same `group`: W&B does not take back the steps after a checkpoint.

    Raises:
        ImportError: wandb is not installed.
        RuntimeError: W&B would not begin the run (nobody is logged in, no such team).
    """

    def __init__(
        self,
        config: WandbConfig,
        folder: Path,
        *,
        group: str | None = None,
        layers_every: int = 10,
        run_config: Mapping[str, Any] | None = None,
    ) -> None:
        self._wandb = _wandb()
        self._layers_every = layers_every
        self._rows: list[list[object]] = []
        self._seen: set[str] = set()
        self._thinning = Thinning(FIRST_ROWS)
        self.trouble: OSError | None = None
        self._run = self._begin(config, folder, group, dict(run_config or {}))

    def step(self, signals: StepSignals, *, log: bool) -> None:
        values = step_values(signals)
        values["train/clipped"] = float(signals.clipped)
        if signals.step % self._layers_every == 0 or not signals.finite:
            values |= {f"train_layers/grad_norm_{name}": norm for name, norm in signals.group_norms.items()}
            values |= {
                f"train_layers/update_ratio_{name}": ratio for name, ratio in signals.update_ratios.items()
            }
        self.scalars(signals.step, values)

    def event(self, event: Event) -> None:
        if event.kind not in ("anomaly", "action"):
            return
        status = event.data.get("status")
        if self._thinning.left_out(f"{event.name}/{status}") is None:
            return
        self._rows.append([event.step, event.kind, event.name, status or "", event.text])
        if event.name not in self._seen:
            self._seen.add(event.name)
            with self._handed_over():
                self._run.summary[f"first_step/{event.name}"] = event.step
        if event.kind == "anomaly" and isinstance(status, str):
            self.scalars(event.step, {f"anomalies/{event.name}": STATUS_MARKS[status]})
        if event.interrupts:
            with self._handed_over():
                level = self._wandb.AlertLevel.WARN
                self._run.alert(event.text.splitlines()[0], event.text, level=level)

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        self.scalars(step, {f"validation/{name}": value for name, value in results.items()})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        with self._handed_over():
            self._run.log(dict(values), step=step)

    def flush(self) -> None:
        """W&B's own process writes, and sends, what it is given."""

    def close(self) -> None:
        with self._handed_over():
            if self._rows:
                self._run.log({"monitor/events": self._wandb.Table(columns=list(COLUMNS), data=self._rows)})
            self._run.finish()

    @contextmanager
    def _handed_over(self) -> Iterator[None]:
        """Keeps as `trouble` what W&B raises, of whatever type: its process may be gone, its disk full."""
        try:
            yield
        except Exception as error:
            self.trouble = error if isinstance(error, OSError) else OSError(" ".join(str(error).split()))
        else:
            self.trouble = None

    def _begin(
        self, config: WandbConfig, folder: Path, group: str | None, run_config: dict[str, Any]
    ) -> "Run":
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # console off: the run's own log has what is printed; silent: the terminal belongs to the monitor
            return self._wandb.init(
                project=config.project,
                entity=config.entity,
                mode=config.mode,
                dir=str(folder),
                group=group,
                config=run_config,
                reinit="create_new",
                settings=self._wandb.Settings(silent=True, console="off"),
            )
        except self._wandb.Error as error:
            said = " ".join(str(error).split())
            raise RuntimeError(
                f"Weights & Biases did not begin the run: {said}; run `wandb login`, or set monitor.wandb.mode=offline"
            ) from error


def _wandb() -> Any:
    """The package, imported when it is wanted: the monitor itself does not need it."""
    try:
        import wandb
    except ImportError as error:
        raise ImportError("the Weights & Biases sink needs the package wandb: pip install wandb") from error
    return wandb
