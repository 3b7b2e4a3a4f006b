"""TensorBoard's event files: the checksum of each record, by TensorBoard's own reader."""

from dataclasses import dataclass
from pathlib import Path

from minigpt.checkpoint.damage import DamagedError, opened
from minigpt.training.verify.report import Checked

_EVERY_STEP = "train/loss"
"""The curve that has a point at each step that is drawn."""


@dataclass
class _Drawn:
    """How far the main curve goes."""

    last_step: int = 0
    largest_gap: int = 1


def check_curves(folder: Path, run_dir: Path, newest_step: int | None) -> list[Checked]:
    """What is wrong with each event file below `folder`, which ought to reach the newest good checkpoint's step."""
    drawn, checks = _Drawn(), []
    for path in sorted(folder.rglob("*tfevents*")):
        checks.append(
            _check(path, str(path.relative_to(run_dir)), drawn if path.parent == folder else _Drawn())
        )
    behind = (newest_step or 0) - drawn.last_step
    if checks and not any(checked.status == "damaged" for checked in checks) and behind >= drawn.largest_gap:
        text = f"its curves end at step {drawn.last_step}, and checkpoint_step_{newest_step}.pt was saved"
        checks.append(Checked(folder.name, "damaged", f"{text}; a resume goes on without what is lost"))
    return checks


def _check(path: Path, name: str, drawn: _Drawn) -> Checked:
    # Slow to import.
    from tensorboard.compat.tensorflow_stub import errors  # type: ignore[import-untyped]
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import (  # type: ignore[import-untyped]
        PyRecordReader_New,
    )

    records, torn = 0, False
    try:
        with opened(path):
            pass
        reader = PyRecordReader_New(str(path))
        while True:
            reader.GetNext()
            records += 1
            _follow(reader.record(), drawn)
    except errors.OutOfRangeError:
        pass
    except errors.DataLossError as error:
        torn = "truncated" in str(error)
        if not torn:
            return Checked(
                name, "damaged", f"record {records + 1} does not match its checksum; delete the file"
            )
    except DamagedError as error:
        return Checked(name, "damaged", error.what)
    except (ValueError, OSError, MemoryError, OverflowError, errors.OpError) as error:
        return Checked(name, "damaged", f"record {records + 1} cannot be read: {error}")
    if torn:
        text = (
            f"{records:,} records; the last is being written, or was cut by a kill: TensorBoard leaves it out"
        )
        return Checked(name, "note", text)
    return Checked(name, "good", f"{records:,} records, the checksum of each is right")


def _follow(record: bytes, drawn: _Drawn) -> None:
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

    try:
        event = Event.FromString(record)
    except DecodeError as error:
        raise ValueError("it is no event") from error
    if any(value.tag == _EVERY_STEP for value in event.summary.value):
        if drawn.last_step:
            drawn.largest_gap = max(drawn.largest_gap, event.step - drawn.last_step)
        drawn.last_step = event.step
