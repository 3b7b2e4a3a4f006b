"""Which checkpoint a resume goes on from, with which settings, and what it leaves alone."""

import shutil
from pathlib import Path

import pytest
import torch

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.checkpoint.health import health_mark
from minigpt.data.tokenizer import bytes_tokenizer
from minigpt.errors import CheckpointError, ConfigError
from minigpt.training.pretrain import pretrain
from tests.training.tiny_run import Workshop, assert_same_run, metrics_of, read_lines

KEEP_ALL = "checkpoint.keep_last=9"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`; the lock's own are no part of a run."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


@pytest.fixture
def run_dir(workshop: Workshop, tmp_path: Path) -> Path:
    """A finished run of 12 steps with checkpoints 0, 4, 5, 8, 10 and 12."""
    folder = tmp_path / "run"
    assert workshop.train(folder, KEEP_ALL, "model.dropout=0.1") == 0
    assert list(checkpoints_by_step(folder)) == [0, 4, 5, 8, 10, 12]
    return folder


def test_resume_from_a_path_moves_newer_checkpoints_aside_when_there_are_some(
    run_dir: Path, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    straight = tmp_path / "straight"
    shutil.copytree(run_dir, straight)
    older = {step: path.read_bytes() for step, path in checkpoints_by_step(run_dir).items()}

    assert workshop.train(run_dir, resume=str(run_dir / "checkpoint_step_5.pt")) == 0

    (aside,) = run_dir.glob("after_step_5_until_*")
    assert {step: path.read_bytes() for step, path in checkpoints_by_step(aside).items()} == {
        step: content for step, content in older.items() if step > 5
    }
    assert len(metrics_of(aside)) == 12
    assert f"checkpoints after step 5 were moved to {aside}" in capsys.readouterr().out
    assert_same_run(straight, run_dir, 12)
    superseded = [event["step"] for event in read_lines(run_dir / "events.jsonl") if event.get("superseded")]
    assert min(superseded) > 5


def test_resume_of_another_folder_goes_on_there_when_no_other_is_named(
    run_dir: Path, workshop: Workshop, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere" / "copy"
    shutil.copytree(run_dir, moved)
    before = contents(run_dir)
    (moved / "checkpoint_step_12.pt").unlink()
    from minigpt.training.pretrain import pretrain

    assert pretrain(None, (), None, str(moved)) == 0
    assert_same_run(run_dir, moved, 12)
    assert contents(run_dir) == before


def test_resume_falls_back_with_one_line_when_the_newest_is_damaged(
    run_dir: Path, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    straight = tmp_path / "straight"
    shutil.copytree(run_dir, straight)
    newest = run_dir / "checkpoint_step_12.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    capsys.readouterr()

    assert workshop.train(run_dir, resume="auto") == 0

    printed = capsys.readouterr().out
    assert printed.count("skipped a damaged checkpoint") == 1
    assert f"Resumed from {run_dir / 'checkpoint_step_10.pt'}" in printed
    assert_same_run(straight, run_dir, 12)


@pytest.mark.parametrize("override", ["model.hidden_size=32", "model.num_layers=1", "optimizer.name=muon"])
@pytest.mark.parametrize("resume", ["auto", "checkpoint_step_5.pt"])
def test_resume_refuses_and_changes_nothing_when_the_checkpoint_does_not_fit(
    resume: str, override: str, run_dir: Path, workshop: Workshop
) -> None:
    before = contents(run_dir)
    place = resume if resume == "auto" else str(run_dir / resume)
    with pytest.raises(CheckpointError, match="checkpoint") as caught:
        workshop.train(run_dir, override, resume=place)
    assert "\n" not in str(caught.value)
    assert contents(run_dir) == before


def test_resume_refuses_when_there_is_nothing_or_the_file_is_none(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="start without --resume"):
        workshop.train(tmp_path / "empty", resume="auto")
    with pytest.raises((CheckpointError, ConfigError), match="nowhere"):
        workshop.train(tmp_path / "empty", resume=str(tmp_path / "nowhere" / "checkpoint_step_5.pt"))
    assert not (tmp_path / "empty").exists()


def test_resume_repeats_the_runs_overrides_and_says_what_differs_when_some_are_new(
    run_dir: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert workshop.train(run_dir, "training.max_steps=14", resume="auto") == 0
    printed = capsys.readouterr().out
    differing = [line.strip() for line in printed.splitlines() if "changed since" in line]
    assert len(differing) == 1
    assert all(word in differing[0] for word in ("training.max_steps", "12", "14"))
    # keep_last=9 and dropout=0.1 were given to the first run only.
    assert list(checkpoints_by_step(run_dir)) == [0, 4, 5, 8, 10, 12, 14]
    config = (run_dir / "config.yaml").read_text()
    assert "dropout: 0.1" in config
    assert "max_steps: 14" in config


def test_resume_trains_with_the_new_settings_when_the_optimizers_were_changed(
    run_dir: Path, workshop: Workshop
) -> None:
    changes = ("optimizer.weight_decay=0.3", "optimizer.betas=[0.8,0.9]", "optimizer.eps=1e-5")
    ratio = "optimizer.embedding_learning_rate_ratio=5"
    assert workshop.train(run_dir, *changes, ratio, "training.max_steps=14", resume="auto") == 0
    (optimizer,) = torch.load(run_dir / "checkpoint_step_14.pt")["optimizer_state_dicts"]
    matrices, tokens, scales = optimizer["param_groups"]
    assert [group["weight_decay"] for group in (matrices, tokens, scales)] == [0.3, 0, 0]
    assert [group["lr_ratio"] for group in (matrices, tokens, scales)] == [1, 5, 1]
    assert {(*group["betas"], group["eps"]) for group in (matrices, tokens, scales)} == {(0.8, 0.9, 1e-5)}
    # The moments are the old ones.
    assert {state["step"].item() for state in optimizer["state"].values()} == {14}


def test_resume_says_so_when_it_computes_in_another_format(
    run_dir: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    # As on a machine where mixed_precision = auto means another format.
    newest = run_dir / "checkpoint_step_12.pt"
    torch.save({**torch.load(newest), "precision": "bf16"}, newest)
    capsys.readouterr()
    assert workshop.train(run_dir, resume="auto") == 0
    assert "not exact: computed in bf16 before, in fp32 now" in capsys.readouterr().out


def test_resume_tells_what_was_restored(
    run_dir: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    workshop.train(run_dir, resume=str(run_dir / "checkpoint_step_10.pt"))
    (restored,) = [line for line in capsys.readouterr().out.splitlines() if "restored:" in line]
    # 10 steps of 8 windows; an epoch has 134.
    for word in (
        "weights",
        "optimizer",
        "random states",
        "monitor",
        "step 10",
        "epoch 0",
        "window 80 of 134",
    ):
        assert word in restored
    assert "scaler" not in restored
    log = Path("logs/training.log").read_text(encoding="utf-8")
    assert "Resumed from" in log


def test_new_run_moves_an_earlier_one_aside_when_the_folder_is_not_empty(
    run_dir: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run_dir)
    assert workshop.train(run_dir, "training.max_steps=4") == 0
    (aside,) = [path for path in run_dir.parent.glob("run_*") if path.is_dir()]
    assert contents(aside) == before
    assert (
        f"an earlier run in {run_dir} was moved to {aside.relative_to(Path.cwd())}" in capsys.readouterr().out
    )
    assert list(checkpoints_by_step(run_dir)) == [0, 4]


def test_new_run_refuses_and_changes_nothing_when_the_folder_holds_what_no_run_wrote(
    run_dir: Path, workshop: Workshop
) -> None:
    """`--run-dir .` must not carry somebody's project away."""
    (run_dir / "src").mkdir()
    for path in (run_dir / "notes.txt", run_dir / "src" / "main.py"):
        path.write_text("the user's own")
    before = contents(run_dir)
    with pytest.raises(CheckpointError, match=r"holds what no run has written \(notes\.txt, src\)"):
        workshop.train(run_dir, "training.max_steps=4")
    assert contents(run_dir) == before
    # Going on with the run is another matter.
    assert workshop.train(run_dir, "training.max_steps=13", resume="auto") == 0
    assert (run_dir / "notes.txt").exists()


@pytest.fixture
def run_on_lost_text(workshop: Workshop, tmp_path: Path) -> Path:
    """A run of 4 steps with a trained tokenizer, whose shards are gone and whose text is another one now."""
    folder = tmp_path / "run"
    bpe = ("data.tokenizer.kind=bpe", "data.tokenizer.vocab_size=280")
    assert workshop.train(folder, *bpe, "training.max_steps=4") == 0
    shutil.rmtree(workshop.folder / "cache")
    for path in (workshop.folder / "corpus").iterdir():
        path.write_text(path.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    return folder


def test_resume_reads_changed_text_in_the_runs_own_tokens(
    run_on_lost_text: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = (run_on_lost_text / "tokenizer.json").read_bytes()
    assert workshop.train(run_on_lost_text, "training.max_steps=6", resume="auto") == 0
    assert "the corpus is not the one the run began with" in capsys.readouterr().out
    assert (run_on_lost_text / "tokenizer.json").read_bytes() == tokenizer


@pytest.mark.parametrize("replaced", [False, True])
def test_resume_is_refused_when_the_runs_own_tokenizer_is_not_there(
    replaced: bool, run_on_lost_text: Path, workshop: Workshop
) -> None:
    """A tokenizer trained anew on other text would give every id another meaning."""
    path = run_on_lost_text / "tokenizer.json"
    if replaced:
        bytes_tokenizer().save(path)
    else:
        path.unlink()
    before = contents(run_on_lost_text)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing or not the one"):
        workshop.train(run_on_lost_text, "training.max_steps=6", resume="auto")
    assert contents(run_on_lost_text) == before


def in_trouble_from_step_7(run_dir: Path) -> None:
    """The checkpoints of steps 10 and 12 are marked and know when it began, before the one of step 8."""
    for step, path in checkpoints_by_step(run_dir).items():
        mark = health_mark({"loss_spike": "sustained"}, 7) if step > 8 else health_mark({}, None)
        torch.save({**torch.load(path), **mark}, path)


def test_resume_says_so_when_the_newest_was_taken_in_trouble(
    run_dir: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    in_trouble_from_step_7(run_dir)
    capsys.readouterr()
    assert workshop.train(run_dir, "training.max_steps=13", resume="auto") == 0
    printed = capsys.readouterr().out
    assert (
        "warning: checkpoint_step_12.pt was taken with loss_spike (sustained) open; "
        "the last healthy one is checkpoint_step_5.pt; to go on from that: --resume "
        f"{run_dir / 'checkpoint_step_5.pt'}" in printed
    )
    assert f"Resumed from {run_dir / 'checkpoint_step_12.pt'}" in printed


def test_resume_goes_on_from_the_last_healthy_checkpoint_when_asked(
    run_dir: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    in_trouble_from_step_7(run_dir)
    capsys.readouterr()
    assert workshop.train(run_dir, resume="healthy") == 0
    printed = capsys.readouterr().out
    assert f"Resumed from {run_dir / 'checkpoint_step_5.pt'}" in printed
    assert "was taken with" not in printed
    assert list(run_dir.glob("after_step_5_until_*"))


def test_resume_goes_on_without_the_monitor_when_its_rules_remembered_other_things(
    run_dir: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = run_dir / "checkpoint_step_12.pt"
    state = torch.load(newest)
    torch.save({**state, "format": 2, "monitor": {"version": 1, "detectors": {"dead_layer": {}}}}, newest)
    capsys.readouterr()
    assert workshop.train(run_dir, "training.max_steps=14", resume="auto") == 0
    assert "the monitor learns anew what is normal" in capsys.readouterr().out


def test_resume_goes_on_from_a_checkpoint_of_the_older_format_without_its_monitor(
    run_dir: Path, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = run_dir / "checkpoint_step_12.pt"
    state = torch.load(newest)
    for name in ("lowered", "rollbacks"):
        del state["position"][name]
    for name in ("healthy", "trouble_since"):
        del state[name]
    torch.save({**state, "format": 1, "monitor": {"of": "another make"}}, newest)
    capsys.readouterr()
    assert workshop.train(run_dir, "training.max_steps=14", resume="auto") == 0
    assert "the monitor learns anew what is normal" in capsys.readouterr().out
    torch.save({**state, "format": 4}, newest)
    with pytest.raises(CheckpointError, match="has checkpoint format 4, this MiniGPT reads 1 to 3"):
        workshop.train(run_dir, resume=str(newest))


def test_resume_takes_the_config_of_the_folder_when_only_a_folder_is_named(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(None, ["training.max_steps=14"], run_dir, "healthy") == 0
    assert "Finished 14 steps" in capsys.readouterr().out
