"""`minigpt replay` tells the story of the step that went wrong, from the bundle alone."""

import shutil
from pathlib import Path

import pytest
import torch

from minigpt.cli.main import USER_ERROR, run
from tests.training.poisoned import (
    FIRST_BAD,
    Poison,
    backward_only,
    nothing,
    one_activation,
    too_large_for_fp16,
    trained,
    weight_row,
)
from tests.training.tiny_run import Workshop


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """Another machine: all that is left of the run is its bundle."""
    folder = tmp_path / "away"
    folder.mkdir()
    return folder


def bundle_of(
    poison: Poison, tmp_path: Path, away: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str
) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trained(Workshop.set_up(home), home / "run", poison, *overrides)
    torch.set_num_threads(threads)
    shutil.copy(home / "run" / f"crash_step_{FIRST_BAD}.pt", away)
    monkeypatch.chdir(away)
    shutil.rmtree(home)
    return away / f"crash_step_{FIRST_BAD}.pt"


def story(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(["replay", *arguments, "--device", "cpu"]) == 0
    return capsys.readouterr().out


def test_replay_names_the_weight_that_was_nan(
    tmp_path: Path, away: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = story(capsys, str(bundle_of(weight_row, tmp_path, away, monkeypatch)))
    assert "step 6 of tiny" in told
    assert "Replay in fp32: loss nan, it happens again" in told
    assert "blocks.1.mlp.down.weight were NaN or infinite already: 1 of 512 numbers" in told
    assert "So: the weights were broken before this step" in told
    # Layer by layer: the first block is sound, the second is marked.
    rows = {line.split()[0]: line for line in told.splitlines() if line.strip().startswith("blocks.")}
    assert float(rows["blocks.0"].split()[1]) > 0
    assert rows["blocks.1"].split()[1] == "nan"
    assert rows["blocks.1"].endswith("<-")


def test_replay_puts_it_down_to_the_precision_when_fp32_is_clean(
    tmp_path: Path, away: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundle_of(too_large_for_fp16, tmp_path, away, monkeypatch, "training.mixed_precision=fp16")
    told = story(capsys, str(path))
    assert "nothing is NaN or infinite" in told
    assert "Replay in fp16: loss nan, it happens again" in told
    assert "So: fp32 does not reproduce it and fp16 does: the precision is the cause" in told
    assert "7.txt" in told
    assert "But activations reach" in told
    as_it_was = story(capsys, str(path), "--precision", "run")
    assert "Replay in fp32" not in as_it_was
    assert "forward: blocks.1.mlp" in as_it_was
    in_fp32 = story(capsys, str(path), "--precision", "fp32")
    assert "Replay in fp16" not in in_fp32


@pytest.mark.parametrize("poison", [one_activation, backward_only])
def test_replay_says_so_when_the_cause_lay_in_code_that_is_not_here(
    poison: Poison,
    tmp_path: Path,
    away: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = story(capsys, str(bundle_of(poison, tmp_path, away, monkeypatch)))
    where = "blocks.0.mlp.gate" if poison is one_activation else "blocks.1.attention.query"
    assert f"the run itself could ({where}): what differs is not in the bundle" in told


def test_replay_refuses_in_one_line_when_the_bundle_is_damaged(
    tmp_path: Path, away: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundle_of(weight_row, tmp_path, away, monkeypatch)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    capsys.readouterr()
    assert run(["replay", str(path)]) == USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path} ")
    path.write_bytes(content[:1000])
    assert run(["replay", str(path)]) == USER_ERROR
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_replay_refuses_in_one_line_when_used_wrongly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([], [str(tmp_path / "none.pt")], [str(tmp_path)], ["x.pt", "--precision", "fp8"]):
        assert run(["replay", *arguments]) == USER_ERROR
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_healthy_run_leaves_nothing_to_replay(
    tmp_path: Path, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError):
        bundle_of(nothing, tmp_path, away, monkeypatch)
