"""`minigpt verify` finds every kind of damage in a run's folder, names the file, and finds none where there is none."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from minigpt.checkpoint.digest import write_sealed
from minigpt.checkpoint.load import load_newest
from minigpt.errors import CheckpointError
from minigpt.training.bundle import bundle_path
from minigpt.training.loop import train
from minigpt.training.pretrain import pretrain
from minigpt.training.verify.place import verify
from minigpt.training.verify.report import Report
from tests.training.tiny_run import Workshop, before_step, opened_run

NEWEST = "checkpoint_step_12.pt"


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def curves(run_dir: Path) -> Path:
    (path,) = (run_dir / "monitor_logs").glob("*tfevents*")
    return path


def wrong(report: Report) -> dict[str, str]:
    return {checked.file: checked.text for checked in report.damaged}


def noted(report: Report) -> dict[str, str]:
    return {checked.file: checked.text for checked in report.files if checked.status == "note"}


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def flip(path: Path, byte: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)


def test_finished_run_is_good_in_every_file(run_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    report = verify(run_dir)
    assert report.good
    assert {checked.status for checked in report.files} == {"good"}
    names = [checked.file for checked in report.files]
    assert len([name for name in names if name.startswith("checkpoint_step_")]) == 6
    assert {"config.yaml", "tokenizer.json", "metrics.jsonl", "events.jsonl"} <= {*names}
    assert [name for name in names if name.endswith("train_00000.bin")]
    assert report.resume_from == run_dir / NEWEST
    assert report.summary().endswith(f"--resume takes {NEWEST}: python -m minigpt train --resume {run_dir}")
    assert before == {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}


def test_damaged_checkpoint_is_named_with_the_one_that_resume_takes(run_dir: Path) -> None:
    flip(run_dir / NEWEST, 5000)
    flip(run_dir / "checkpoint_step_4.pt", -1)
    report = verify(run_dir)
    assert [*wrong(report)] == ["checkpoint_step_4.pt", NEWEST]
    assert report.resume_from == run_dir / "checkpoint_step_10.pt" == load_newest(run_dir).path
    assert report.summary().startswith("damaged: 2 of ")
    assert "--resume takes checkpoint_step_10.pt" in report.summary()


def test_every_checkpoint_may_be_damaged(run_dir: Path) -> None:
    for path in run_dir.glob("*.pt"):
        path.write_bytes(b"")
    report = verify(run_dir)
    assert len(report.damaged) == 6
    assert report.resume_from is None
    assert "there is no good checkpoint to resume from" in report.summary()


@pytest.mark.parametrize("name", ["config.yaml", "tokenizer.json", "metrics.jsonl", "events.jsonl", NEWEST])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path.name)])
def test_whatever_stands_in_a_files_place_is_damage_and_is_not_waited_for(
    make: Callable[[Path], None], name: str, run_dir: Path
) -> None:
    (run_dir / name).unlink()
    make(run_dir / name)
    assert [*wrong(verify(run_dir))] == [name]


@pytest.mark.parametrize("name", ["config.yaml", "tokenizer.json", "metrics.jsonl", "events.jsonl"])
def test_file_is_missed_when_it_is_gone(name: str, run_dir: Path) -> None:
    (run_dir / name).unlink()
    assert wrong(verify(run_dir))[name].startswith("it is not there; ")


def test_config_and_tokenizer_must_be_those_of_the_checkpoints(run_dir: Path) -> None:
    config, tokenizer = run_dir / "config.yaml", run_dir / "tokenizer.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("max_steps: 12", "max_steps: 14"), encoding="utf-8")
    report = verify(run_dir)
    assert report.good
    assert noted(report) == {
        "config.yaml": f"not what {NEWEST} was trained with: training.max_steps: 12 -> 14"
    }
    config.write_text(text.replace("hidden_size: 16", "hidden_size: 32"), encoding="utf-8")
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))
    ids = vocabulary["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]
    tokenizer.write_text(json.dumps(vocabulary), encoding="utf-8")
    found = wrong(verify(run_dir))
    assert [*found] == ["config.yaml", "tokenizer.json"]
    assert "embedding.weight is (320, 16) there and (320, 32) here" in found["config.yaml"]
    assert "trained with another tokenizer" in found["tokenizer.json"]


def test_checkpoint_of_another_run_is_told_from_the_runs_own(run_dir: Path) -> None:
    state = torch.load(run_dir / NEWEST)
    state["model_state_dict"]["embedding.weight"] = torch.zeros(320, 8)
    write_sealed(run_dir / NEWEST, state)
    found = wrong(verify(run_dir))
    assert [*found] == [NEWEST]
    assert found[NEWEST].startswith("another run's: the checkpoint has another model")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda lines: lines[:4] + lines[5:], "line 5 has step 6 after step 4"),
        (lambda lines: lines[:4] + lines[3:], "line 5 has step 4 after step 4"),
        (lambda lines: lines[1:], "line 1 has step 2 after step 0"),
        (lambda lines: lines[:10], "it ends at step 10, and checkpoint_step_12.pt was saved"),
        (
            lambda lines: [*lines[:-1], lines[-1][:-1]],
            "it ends at step 11, and checkpoint_step_12.pt was saved",
        ),
        (lambda lines: [*lines[:3], bytes(300), b"\n", *lines[3:]], "line 4 is no JSON"),
        (lambda lines: [b"[" * 100_000, b"\n", *lines], "line 1 is no JSON"),
        (lambda lines: [b"3\n", *lines], "line 1 is no record"),
    ],
)
def test_metrics_are_damaged_when_a_step_is_lost_or_twice_there(
    change: Callable[[list[bytes]], list[bytes]], told: str, run_dir: Path
) -> None:
    path = run_dir / "metrics.jsonl"
    path.write_bytes(b"".join(change(lines_of(path))))
    assert wrong(verify(run_dir)) == {"metrics.jsonl": f"{told}; a resume goes on without what is lost"}


@pytest.mark.parametrize("rest", [b'{"step": 13, "lo', b"\0\0\0\0\n", b'{"step": 19}\n'])
def test_what_no_checkpoint_vouches_for_is_no_damage(rest: bytes, run_dir: Path) -> None:
    """A kill, or the power cut, in the middle of what came after it: a resume drops that."""
    with (run_dir / "metrics.jsonl").open("ab") as file:
        file.write(rest)
    report = verify(run_dir)
    assert report.good
    assert "--resume drops it" in noted(report)["metrics.jsonl"]


def test_records_are_those_that_the_checkpoints_vouch_for(run_dir: Path) -> None:
    path = run_dir / "metrics.jsonl"
    content = path.read_bytes()
    known = {"bytes": 700, "sha256": hashlib.sha256(content[:700]).hexdigest()}
    state = torch.load(run_dir / NEWEST)
    write_sealed(run_dir / NEWEST, {**state, "records": {"metrics.jsonl": known}})
    assert verify(run_dir).good
    digit = content.index(b'"loss": 5') + 8
    path.write_bytes(content[:digit] + b"6" + content[digit + 1 :])
    (said,) = wrong(verify(run_dir)).values()
    assert re.fullmatch(
        r"its first [\d,]+ bytes are not those that checkpoint_step_\d+\.pt vouches for; "
        "a resume goes on without what is lost",
        said,
    )
    path.write_bytes(content)
    known["bytes"] = len(content) + 1
    write_sealed(run_dir / NEWEST, {**state, "records": {"metrics.jsonl": known}})
    assert f"{NEWEST} vouches for {len(content) + 1:,}" in wrong(verify(run_dir))["metrics.jsonl"]
    write_sealed(run_dir / NEWEST, {**state, "records": {"metrics.jsonl": 5}})
    assert "it is not a MiniGPT checkpoint: 'records.metrics.jsonl'" in wrong(verify(run_dir))[NEWEST]


def test_curves_are_damaged_when_a_bit_flipped_or_their_end_is_lost(run_dir: Path, curves: Path) -> None:
    name = str(curves.relative_to(run_dir))
    content = curves.read_bytes()
    for byte in (0, 9, 30, len(content) // 2, len(content) - 1):
        curves.write_bytes(content)
        flip(curves, byte)
        assert "does not match its checksum" in wrong(verify(run_dir))[name]
    curves.write_bytes(content[: len(content) // 2])
    assert wrong(verify(run_dir))["monitor_logs"].startswith("its curves end at step ")
    curves.write_bytes(content[:-3])
    report = verify(run_dir)
    assert "cut by a kill" in noted(report)[name]


def test_prepared_corpus_is_part_of_the_run(run_dir: Path, tmp_path: Path) -> None:
    own = Path(torch.load(run_dir / NEWEST)["corpus"]["folder"])
    folder = Path(shutil.copytree(own, tmp_path / own.name))
    state = torch.load(run_dir / NEWEST)
    state["corpus"]["folder"] = str(folder)
    write_sealed(run_dir / NEWEST, state)
    assert verify(run_dir).good
    assert verify(folder).good
    flip(folder / "train_00000.bin", 100)
    ((name, told),) = wrong(verify(folder)).items()
    assert name == "train_00000.bin"
    assert "bytes 0 to " in told
    assert "are not as they were written; delete its folder" in told
    assert [*wrong(verify(run_dir))] == [str(folder / "train_00000.bin")]
    (folder / "train_00000.bin").unlink()
    assert [*wrong(verify(folder))] == ["manifest.json", "train_00000.bin"]
    (folder / "manifest.json").write_text("{", encoding="utf-8")
    assert [*wrong(verify(folder))] == ["manifest.json"]
    shutil.rmtree(folder)
    report = verify(run_dir)
    assert report.good
    assert "--resume prepares it anew" in noted(report)[str(folder)]


def test_bundle_and_leftovers_are_told(run_dir: Path) -> None:
    bundle = bundle_path(run_dir, 3)
    write_sealed(bundle, {"kind": "minigpt crash bundle", "format": 1, "step": 3})
    (run_dir / ".checkpoint_step_8.pt.tmp-host-1-00ff").write_bytes(b"half")
    (run_dir / "after_step_8_until_2026-01-01_000000").mkdir()
    report = verify(run_dir)
    assert report.good
    assert [*noted(report)] == [
        ".checkpoint_step_8.pt.tmp-host-1-00ff",
        "after_step_8_until_2026-01-01_000000",
    ]
    assert verify(bundle).good
    shutil.copy(bundle, bundle_path(run_dir, 4))
    assert wrong(verify(run_dir)) == {
        "crash_step_4.pt": "it holds step 3, not 4; bring it back from a copy, or delete it"
    }
    flip(bundle, 100)
    assert [*wrong(verify(bundle))] == ["crash_step_3.pt"]


def test_single_checkpoint_is_verified_with_what_lies_beside_it(run_dir: Path, tmp_path: Path) -> None:
    report = verify(run_dir / NEWEST)
    assert report.good
    assert [checked.file for checked in report.files] == [NEWEST]
    alone = Path(shutil.copy(run_dir / NEWEST, tmp_path / "best.pt"))
    assert verify(alone).good
    flip(alone, 700)
    assert [*wrong(verify(alone))] == ["best.pt"]
    (run_dir / NEWEST).unlink()
    (run_dir / NEWEST).mkdir()
    assert "it is a folder" in wrong(verify(run_dir / NEWEST))[NEWEST]


def test_verify_refuses_in_one_line_what_no_run_wrote(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there; give a run's folder"):
        verify(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="holds neither checkpoints nor a manifest"):
        verify(tmp_path)


def test_run_that_trains_meanwhile_is_good_at_every_step(workshop: Workshop, tmp_path: Path) -> None:
    folder, reports = tmp_path / "watched", []
    with opened_run(workshop.config("checkpoint.keep_last=2"), folder) as run:
        (folder / "config.yaml").write_text(
            Path(workshop.config_path).read_text(encoding="utf-8"), encoding="utf-8"
        )
        run.tokenizer.save(folder / "tokenizer.json")
        for step in (1, 3, 5, 6, 9, 12):
            before_step(run, step, lambda: reports.append(verify(folder)))
        assert train(run) == "finished"
    assert len(reports) == 6
    assert [wrong(report) for report in reports] == [{}] * 6


def test_run_that_went_on_elsewhere_or_was_resumed_is_good(
    finished: Path, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pretrain(None, (), None, str(run_dir / "checkpoint_step_8.pt")) == 0
    assert wrong(verify(run_dir)) == {}
    elsewhere = tmp_path / "elsewhere"
    assert pretrain(None, (), elsewhere, str(finished / "checkpoint_step_5.pt")) == 0
    assert wrong(verify(elsewhere)) == {}
