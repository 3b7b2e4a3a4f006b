"""What the last bits depend on is recorded, and a resume tells what matters from what does not."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from minigpt.training import environment as environment_module
from minigpt.training.environment import HARMLESS, environment, environment_differences
from tests.training.tiny_run import Workshop, read_lines

RECORDED = {
    "minigpt", "commit", "python", "torch", "numpy", "tokenizers", "system", "machine", "cpu", "cpu_capability",
    "threads", "interop_threads", "mkldnn", "matmul_precision", "deterministic", "c++", "MKL_CBWR",
    "CUBLAS_WORKSPACE_CONFIG",
}  # fmt: skip


def test_environment_is_plain_text_and_the_same_twice() -> None:
    found = environment()
    assert found.keys() >= RECORDED
    assert {type(value) for value in found.values()} == {str}
    assert environment() == found
    assert environment_differences(found, environment()) == []


def test_environment_sees_what_users_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    before = environment()
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        lines = environment_differences(before, environment())
    finally:
        torch.set_num_threads(threads)
    assert lines == [
        f"threads {threads} -> {threads + 1}: results may round differently",
        "mkldnn on -> off: results may round differently",
        "MKL_CBWR unset -> COMPATIBLE: results may round differently",
    ]


def test_environment_is_whole_when_nothing_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No git, no compiler, no /proc: a run begins all the same."""
    monkeypatch.setattr(environment_module, "_first_line", lambda *command: "")
    monkeypatch.setattr(
        environment_module, "version", lambda name: (_ for _ in ()).throw(ModuleNotFoundError)
    )
    monkeypatch.setattr(environment_module, "PackageNotFoundError", ModuleNotFoundError)
    for ask in (environment_module._commit, environment_module._compiler):
        ask.cache_clear()
    try:
        found = environment()
    finally:
        for ask in (environment_module._commit, environment_module._compiler):
            ask.cache_clear()
    assert (found["commit"], found["c++"], found["tokenizers"]) == ("none", "none", "none")


def test_differences_tell_rounding_from_harmless_and_pass_over_what_one_does_not_know() -> None:
    then = {"system": "Linux 6.1", "torch": "2.11", "c++": "g++ 12", "of an old version": "1", "threads": "4"}
    now = {"system": "Linux 6.2", "torch": "2.12", "c++": "g++ 13", "new": "2", "threads": "4"}
    assert environment_differences(then, now) == [
        "torch 2.11 -> 2.12: results may round differently",
        "c++ g++ 12 -> g++ 13: results may round differently",
        "system Linux 6.1 -> Linux 6.2: harmless",
    ]
    # No code of that compiler's is in an eager run.
    assert "c++ g++ 12 -> g++ 13: harmless" in environment_differences(then, now, compiled=False)


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_harmless_is_only_what_is_recorded(name: str) -> None:
    assert name in environment() or name == "driver"


def test_resume_says_and_records_what_changed_around_it(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert workshop.train(run_dir, "training.max_steps=4") == 0
    saved = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))
    chosen = {"micro_batch_size": "4", "precision": "off", "ranks": "1"}
    assert saved == torch.load(run_dir / "checkpoint_step_4.pt")["environment"] | chosen
    assert saved["deterministic"] == "on"
    path = run_dir / "checkpoint_step_4.pt"
    state = torch.load(path)
    state["environment"] |= {"threads": "64", "system": "Linux 2.4"}
    torch.save(state, path)
    capsys.readouterr()
    assert workshop.train(run_dir, "training.max_steps=5", resume="auto") == 0
    printed = capsys.readouterr().out
    (resume,) = [event for event in read_lines(run_dir / "events.jsonl") if event["kind"] == "resume"]
    for line in (
        "changed since: threads 64 -> 1: results may round differently",
        f"changed since: system Linux 2.4 -> {saved['system']}: harmless",
    ):
        assert line in printed
        assert line in resume["text"]


def test_new_run_moves_the_environment_aside_with_the_rest(workshop: Workshop, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    for _ in range(2):
        assert workshop.train(run_dir, "training.max_steps=1") == 0
    (aside,) = [path for path in tmp_path.glob("run_*") if path.is_dir()]
    assert (aside / "environment.json").is_file()
    shutil.rmtree(aside)
