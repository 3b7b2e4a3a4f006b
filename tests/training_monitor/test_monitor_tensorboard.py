"""What TensorBoard shows, read back with its own reader, also after kills and resumes."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.tensorboard import TensorBoardSink


def shown(folder: Path, tag: str) -> list[tuple[int, float]]:
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return [(scalar.step, scalar.value) for scalar in reader.Scalars(tag)]


def write(folder: Path, first: int, last: int, keep_through: int = 0, loss: float = 3.0) -> None:
    sink = TensorBoardSink(folder, keep_through=keep_through)
    for step in range(first, last + 1):
        sink.step(StepSignals(step, loss, 0.3, group_norms={"blocks.0": 0.1}), log=False)
    sink.flush()
    sink.close()


def test_tensorboard_shows_all_that_the_monitor_saw(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path, layers_every=2)
    for step in range(1, 5):
        signals = StepSignals(
            step,
            3.0,
            2.0,
            1e-3,
            group_norms={"blocks.0": 0.1},
            clipped=step > 2,
            scaler_scale=64.0,
            tokens_per_second=900.0,
            mfu=0.5,
            memory_bytes=2**30,
        )
        sink.step(signals, log=False)
    sink.evaluation(4, {"loss": 2.0, "perplexity": 7.4, "bits_per_byte": 1.1})
    sink.scalars(4, {"grad_check/ok_params": 12.0})
    sink.event(Event(3, "anomaly", "nan_loss", "⚠️ Anomaly\n   Seen", True, {"status": "sustained"}))
    sink.flush()
    assert shown(tmp_path, "train/clipped_share")[1::2] == [(2, 0.0), (4, 0.5)]
    assert [step for step, _ in shown(tmp_path, "train_layers/grad_norm_blocks.0")] == [2, 4]
    assert shown(tmp_path, "anomalies/nan_loss") == [(3, 2.0)]
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    expected = {"loss", "grad_norm", "lr", "tokens_per_second", "mfu", "scaler_scale", "memory_gib"}
    assert {f"train/{name}" for name in expected} <= set(reader.Tags()["scalars"])
    assert {"validation/loss", "validation/bits_per_byte", "grad_check/ok_params"} <= set(
        reader.Tags()["scalars"]
    )
    assert reader.Tags()["tensors"] == ["anomaly/nan_loss/text_summary"]
    sink.close()


def test_tensorboard_takes_numbers_that_are_not_finite(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, loss=math.nan)
    assert [math.isnan(value) for _, value in shown(tmp_path, "train/loss")] == [True, True]


def test_tensorboard_shows_every_step_once_when_resumed_again_and_again(tmp_path: Path) -> None:
    write(tmp_path, 1, 17, loss=1.0)
    write(tmp_path, 11, 25, keep_through=10, loss=2.0)
    write(tmp_path, 21, 30, keep_through=20, loss=3.0)
    expected = [(step, 1.0 if step <= 10 else 2.0 if step <= 20 else 3.0) for step in range(1, 31)]
    assert shown(tmp_path, "train/loss") == expected


def test_tensorboard_shows_only_the_new_run_when_it_takes_the_folder(tmp_path: Path) -> None:
    write(tmp_path, 1, 9, loss=1.0)
    write(tmp_path, 1, 3, loss=2.0)
    assert shown(tmp_path, "train/loss") == [(1, 2.0), (2, 2.0), (3, 2.0)]


def test_tensorboard_survives_a_torn_tail(tmp_path: Path) -> None:
    write(tmp_path, 1, 12, loss=1.0)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    write(tmp_path, 11, 15, keep_through=10, loss=2.0)
    assert [step for step, _ in shown(tmp_path, "train/loss")] == list(range(1, 16))


def test_tensorboard_has_every_step_up_to_the_flush_when_the_process_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from minigpt.training_monitor.signals import StepSignals\n"
        "from minigpt.training_monitor.sinks.tensorboard import TensorBoardSink\n"
        "sink = TensorBoardSink(Path(sys.argv[1]))\n"
        "for step in range(1, 30):\n"
        "    sink.step(StepSignals(step, 3.0, 0.3), log=False)\n"
        "    if step == 20: sink.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    write(tmp_path, 21, 25, keep_through=20)
    assert [step for step, _ in shown(tmp_path, "train/loss")] == list(range(1, 26))
