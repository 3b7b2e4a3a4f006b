"""monitor_logs: everything the monitor saw, as TensorBoard curves with the anomalies marked on them."""

import os
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.curves import STATUS_MARKS, step_values

CLIPPED_SHARE_STEPS = 100


class TensorBoardSink:
    """One event a step with all its scalars; layer norms every `layers_every` steps.

    Opened with keep_through=N (0 for a new run), TensorBoard drops what older files show after step N;
    `clipped_before` tells of the steps until then, so that the share of clipped steps goes on without a jump.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_through: int = 0,
        layers_every: int = 10,
        clipped_before: Iterable[bool] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        older = sorted(folder.glob("events.out.tfevents.*"))
        if older:
            _wait_until_after(older)
        self._folder = folder
        self._layers_every = layers_every
        self._clipped: deque[bool] = deque(clipped_before, maxlen=CLIPPED_SHARE_STEPS)
        # A new run says so too: TensorBoard's server takes the first such mark for a beginning, whatever came before.
        self._writer = SummaryWriter(str(folder), purge_step=keep_through + 1)
        self._files = sorted(set(folder.glob("events.out.tfevents.*")) - set(older))

    def step(self, signals: StepSignals, *, log: bool) -> None:
        self._clipped.append(signals.clipped)
        values = step_values(signals)
        values["train/clipped_share"] = sum(self._clipped) / len(self._clipped)
        if signals.step % self._layers_every == 0 or not signals.finite:
            values |= _layer_values(signals)
        if signals.look is not None:
            values |= _look_values(signals.look)
        self.scalars(signals.step, values)

    def event(self, event: Event) -> None:
        if event.kind == "evaluation":
            return
        self._writer.add_text(f"{event.kind}/{event.name}", event.text.replace("\n", "  \n"), event.step)
        status = event.data.get("status")
        if event.kind == "anomaly" and isinstance(status, str):
            self.scalars(event.step, {f"anomalies/{event.name}": STATUS_MARKS[status]})

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        self.scalars(step, {f"validation/{name}": value for name, value in results.items()})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        # One protobuf for all tags: add_scalar would write, and queue, an event for each.
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        file_writer = self._writer._get_file_writer()  # type: ignore[no-untyped-call]
        file_writer.add_summary(summary, step)

    def flush(self) -> None:
        self._writer.flush()
        # The folder too, or a power failure could take a file's name away.
        for path in (*self._files, self._folder):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        self._writer.close()


def _layer_values(signals: StepSignals) -> dict[str, float]:
    """What changes slowly, or is of interest only when something is wrong."""
    layers = {
        "grad_norm": signals.group_norms,
        "weight_norm": signals.weight_norms,
        "update_ratio": signals.update_ratios,
    }
    values = {
        f"train_layers/{kind}_{name}": value for kind, of in layers.items() for name, value in of.items()
    }
    known = {"train/leftover_grad_norm": signals.leftover_grad_norm}
    if signals.batch is not None:
        batch = signals.batch
        known |= {
            "train_data/distinct_tokens": batch.distinct_tokens,
            "train_data/top_fraction": batch.top_fraction,
            "train_data/label_match": batch.label_match,
            "train_data/label_copy": batch.label_copy,
            "train_data/ignored_fraction": batch.ignored_fraction,
        }
    return values | {tag: value for tag, value in known.items() if value is not None}


def _look_values(look: Look) -> dict[str, float]:
    """The numbers of a closer look: one curve a layer, or one in all."""
    values: dict[str, float] = {}
    for field in fields(look):
        found = getattr(look, field.name)
        if isinstance(found, Mapping):
            values |= {f"train_forward/{field.name}_{name}": value for name, value in found.items()}
        elif isinstance(found, (int, float)):
            values[f"train_forward/{field.name}"] = found
    return values


def _wait_until_after(older: list[Path]) -> None:
    """Event files are read in the order of their names, which begin with a whole second: two sessions within
    one second could be read in the wrong order, and the purge of a resume would miss. Waits at most 2 s."""
    stamps = [int(part) for path in older if (part := path.name.split(".")[3]).isdigit()]
    deadline = time.monotonic() + 2.0
    while stamps and int(time.time()) <= max(stamps) and time.monotonic() < deadline:
        time.sleep(0.02)
