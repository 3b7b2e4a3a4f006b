"""S15, S16: metrics, events, tables, logs and curves of strangers, and what a terminal gets to see."""

import io
import json
import os
import shutil
import struct
from contextlib import redirect_stdout
from pathlib import Path
from typing import TextIO, cast

import pytest
import typer

from minigpt.checkpoint.files import checkpoint_path, checkpoints_by_step
from minigpt.checkpoint.load import load_checkpoint
from minigpt.checkpoint.save import save_checkpoint
from minigpt.visible import VisibleStream, visible
from tests.security.commands import ESCAPE, Commands, refused, told_damaged


def _steps(**wrong: object) -> str:
    steps = [{"step": step, "loss": 3 - step / 100, "grad_norm": 1.0, "lr": 1e-3} for step in range(1, 50)]
    return "\n".join(json.dumps(record) for record in [*steps, {**steps[-1], "step": 50, **wrong}]) + "\n"


RECORDS = {
    "digits/metrics.jsonl": _steps(loss=10**400),
    "seconds/metrics.jsonl": _steps(seconds=10**400),
    "seen/metrics.jsonl": _steps(tokens_seen="Infinity"),
    "steering/metrics.jsonl": _steps(group_norms={ESCAPE: 1e-12}),
    "words/metrics.jsonl": _steps(group_norms=[1], batch=[1], look="x", parameters={}),
    "far/metrics.jsonl": _steps(step=10**17),
    "line/metrics.jsonl": _steps() + '{"step": 51, "x": "' + "a" * (64 << 20) + '"}\n',
    "deep/metrics.jsonl": _steps() + '{"a":' * 100_000 + "\n",
    "state/trainer_state.json": '{"log_history": [' + "[" * 100_000,
    "state2/trainer_state.json": '{"log_history": [{"step": 1'
    + "0" * 400
    + ', "loss": 1}], "logging_steps": 1}',
    "table/metrics.csv": "step,loss\n1,2\n" + "9" * 5000 + ",1\n1e400,1\n",
    "header/metrics.csv": "step," + "a" * (2 << 20) + "\n1,2\n",
    "log/training.log": "Step 1: Loss: 1 grad_norm=1\nStep " + "9" * 5000 + ": Loss: 1 grad_norm=1\n",
}


@pytest.mark.promise("S15", "S16")
@pytest.mark.parametrize("name", RECORDS)
def test_diagnose_stays_calm_when_a_record_is_hostile(name: str, commands: Commands, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir()
    path.write_text(RECORDS[name], encoding="utf-8")
    event = {"step": 5, "kind": "resume", "name": "resume", "text": ESCAPE, "data": "x"}
    (path.parent / "events.jsonl").write_text(
        json.dumps(event) + "\n" + json.dumps({**event, "kind": "evaluation"})
    )
    for arguments in (("diagnose",), ("diagnose", "--json")):
        ended = commands.run(*arguments, path.parent, cwd=tmp_path)
        if ended.code == 2:
            refused(ended)
        assert ended.code in (0, 2, 3, 4), ended.err
        assert "Traceback" not in ended.err
        assert not ended.events
        assert ended.out + ended.err == visible(ended.out + ended.err)


def _event_file(length: int) -> bytes:
    """The beginning of a TensorBoard record that is said to be so long; the checksum of that is right."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import (  # type: ignore[import-untyped]
        masked_crc32c,
    )

    header = struct.pack("<Q", length)
    return header + struct.pack("<I", masked_crc32c(header)) + b"x" * 100


@pytest.mark.promise("S15")
def test_verify_stays_calm_when_records_are_hostile(
    commands: Commands, trained: Path, tmp_path: Path
) -> None:
    """In a folder whose checkpoints vouch for nothing."""
    run_dir = shutil.copytree(trained, tmp_path / "run")
    for step in checkpoints_by_step(run_dir):
        state = load_checkpoint(checkpoint_path(run_dir, step))
        save_checkpoint(run_dir, step, {**state, "records": {}})
    path = next((run_dir / "monitor_logs").glob("*tfevents*"))
    for length in (5 * 10**9, 2**62, 2**63, 2**64 - 1):
        path.write_bytes(_event_file(length))
        assert "record 1 cannot be read" in told_damaged(commands.run("verify", run_dir, cwd=tmp_path))
    path.unlink()
    for name in ("metrics.jsonl", "events.jsonl"):
        good = (run_dir / name).read_bytes()
        for wrong in ("9" * 5000, "9" * 4000, "[" * 100_000, "null", "1e400", '"' + "a" * (20 << 20) + '"'):
            (run_dir / name).write_text(f'{{"step": {wrong}, "kind": "save"}}\n', encoding="utf-8")
            told = told_damaged(commands.run("verify", run_dir, cwd=tmp_path))
            assert f"damaged  {name}: line 1 " in told
            assert len(max(told.splitlines(), key=len)) < 1000
        (run_dir / name).write_bytes(good)


@pytest.mark.promise("S15")
def test_diagnose_does_not_wait_for_pipes(commands: Commands, tmp_path: Path) -> None:
    for name in (
        "metrics.jsonl",
        "trainer_state.json",
        "metrics.csv",
        "training.log",
        "events.out.tfevents.1",
    ):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        os.mkfifo(folder / name)
        refused(commands.run("diagnose", folder, cwd=tmp_path))


@pytest.mark.promise("S16")
def test_control_characters_are_visible_wherever_they_come_from(commands: Commands, tmp_path: Path) -> None:
    taken = io.BytesIO()
    for encoding in ("utf-8", "ascii"):
        stream = io.TextIOWrapper(taken, encoding=encoding, errors="replace")
        with redirect_stdout(cast(TextIO, VisibleStream(stream))):
            typer.echo(ESCAPE)
            print(ESCAPE)
        stream.detach()
    assert len(taken.getvalue().splitlines()) == 4
    assert taken.getvalue().replace(b"\n", b"").decode("ascii").isprintable()
    assert visible(f"a{ESCAPE}\n\tb") == "a\\x1b]0;pwned\\x07\\x1b[2J\\x9b31m\\u202e\n\tb"
    (tmp_path / f"x{ESCAPE}".replace("/", "")).mkdir()
    place = tmp_path / f"x{ESCAPE}"
    (place / "checkpoint_step_1.pt").write_bytes(b"no archive")
    for arguments in (("generate",), ("diagnose",), ("train", "--resume"), ("replay",), ("evaluate",)):
        line = refused(commands.run(*arguments, place, cwd=tmp_path))
        assert "\\x1b" in line
    (place / "monitor_logs").mkdir()
    (place / "monitor_logs" / f"tfevents{ESCAPE}").write_bytes(b"no events")
    assert "\\x1b" in told_damaged(commands.run("verify", place, cwd=tmp_path))
