"""S17 to S21: paths, links, networks, processes and the rights of what is written."""

import os
import shutil
import stat
from pathlib import Path

import pytest
import torch

from minigpt.checkpoint.config import CheckpointConfig
from minigpt.checkpoint.save import apply_retention, save_checkpoint
from minigpt.compiled_code import keep_compiled_code_private
from minigpt.training.aside import set_aside
from tests.security.commands import Commands, refused
from tests.training.tiny_run import Workshop


@pytest.mark.promise("S18", "S19")
def test_nothing_listens_connects_or_starts_over_a_whole_life(
    commands: Commands, workshop: Workshop, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    lives = (
        ("prepare", "--config", workshop.config_path),
        (
            "train",
            "--config",
            workshop.config_path,
            "--run-dir",
            run_dir,
            "--set",
            "training.sample_tokens=5",
        ),
        ("train", "--resume", run_dir, "--set", "training.max_steps=14"),
        ("generate", run_dir, "--max-new-tokens", "3"),
        ("evaluate", run_dir),
        ("diagnose", run_dir),
        ("verify", run_dir),
        ("memory", "--config", workshop.config_path),
        ("config", "show", "--config", workshop.config_path),
    )
    old = os.umask(0o027)
    try:
        for arguments in lives:
            ended = commands.run(*map(str, arguments), cwd=tmp_path)
            assert ended.code in (0, 3, 4), (arguments, ended.err)
            assert ended.events == [], arguments
            places = (tmp_path, workshop.folder, commands.cache, Path("/dev"), Path("/proc"))
            strangers = [
                path
                for path in ended.changes
                if not any(Path(tmp_path, path).is_relative_to(place) for place in places)
            ]
            assert strangers == [], arguments
    finally:
        os.umask(old)
    for path in run_dir.rglob("*"):
        if path.is_file():
            assert not stat.S_IMODE(path.stat().st_mode) & 0o111, path


@pytest.mark.promise("S17")
def test_retention_deletes_a_link_and_never_what_it_leads_to(tmp_path: Path) -> None:
    run_dir, outside = tmp_path / "run", tmp_path / "precious"
    run_dir.mkdir()
    outside.write_text("precious")
    (run_dir / "checkpoint_step_1.pt").symlink_to(outside)
    for step in (2, 3):
        save_checkpoint(run_dir, step, {"model_state_dict": {}})
    assert apply_retention(run_dir, CheckpointConfig(keep_last=2, keep_best=False), set()).deleted == [1]
    assert outside.read_text() == "precious"
    assert not (run_dir / "checkpoint_step_1.pt").is_symlink()


@pytest.mark.promise("S17")
def test_links_in_a_run_folder_are_moved_and_not_followed(tmp_path: Path) -> None:
    run_dir, outside = tmp_path / "run", tmp_path / "precious"
    run_dir.mkdir()
    outside.mkdir()
    (outside / "file").write_text("precious")
    (run_dir / "monitor_logs").symlink_to(outside)
    (run_dir / "checkpoint_step_1.pt").symlink_to(outside / "file")
    aside = set_aside(run_dir)
    assert aside is not None
    assert (outside / "file").read_text() == "precious"
    assert (tmp_path / aside / "monitor_logs").is_symlink()


@pytest.mark.promise("S17")
def test_checkpoint_that_is_a_link_to_something_else_is_refused_without_showing_it(
    commands: Commands, trained: Path, tmp_path: Path
) -> None:
    run_dir = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint_*"))
    secret = tmp_path / "secret"
    secret.write_text("root:hunter2")
    path = run_dir / "checkpoint_step_9.pt"
    for target in (secret, Path("/dev/zero"), tmp_path):
        path.symlink_to(target)
        for arguments in (("generate",), ("train", "--resume")):
            assert "hunter2" not in refused(commands.run(*arguments, path.parent, cwd=tmp_path))
        path.unlink()
    os.mkfifo(path)
    refused(commands.run("generate", run_dir, cwd=tmp_path))
    assert secret.read_text() == "root:hunter2"


@pytest.mark.promise("S20")
def test_generated_text_is_plain_in_a_pipe_and_needs_no_data(
    commands: Commands, trained: Path, tmp_path: Path
) -> None:
    """The data section of a stranger's checkpoint is not looked at by `generate`."""
    run_dir = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint_*"))
    state = torch.load(trained / "checkpoint_step_12.pt", weights_only=True)
    state["config"]["data"] |= {"source": "hf:stranger/data", "cache_dir": str(tmp_path / "elsewhere")}
    torch.save(state, run_dir / "checkpoint_step_12.pt")
    ended = commands.run("generate", run_dir, "--max-new-tokens", "3", cwd=tmp_path)
    assert ended.code == 0
    assert ended.events == []
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.promise("S21")
def test_compiled_code_is_kept_where_only_the_user_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(cache: Path) -> str | None:
        monkeypatch.setenv("MINIGPT_CACHE", str(cache))
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        keep_compiled_code_private()
        return os.environ.get("TORCHINDUCTOR_CACHE_DIR")

    own, planted, linked = tmp_path / "own", tmp_path / "planted", tmp_path / "linked"
    assert chosen(own) == str(own / "compiled")
    assert stat.S_IMODE((own / "compiled").stat().st_mode) == 0o700
    (planted / "compiled").mkdir(parents=True)
    (planted / "compiled").chmod(0o777)
    linked.mkdir()
    (linked / "compiled").symlink_to(planted / "compiled")
    assert chosen(planted) is None
    assert chosen(linked) is None
