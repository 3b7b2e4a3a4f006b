import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


def script(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # -I: neither PYTHONPATH nor the current folder helps to find the package.
    command = [sys.executable, "-I", str(SCRIPTS / name), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_optimize_memory_prints_the_report_of_medium_from_any_folder(tmp_path: Path) -> None:
    done = script("optimize_memory.py", "--analyze", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Memory of a training step of medium" in done.stdout
    assert "peak" in done.stdout


def test_optimize_memory_reports_on_another_preset_with_overrides(tmp_path: Path) -> None:
    arguments = ("--analyze", "--config", "small", "--set", "training.micro_batch_size=2")
    done = script("optimize_memory.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert "of small" in done.stdout
    assert "micro_batch_size 2 (as set)" in done.stdout


def test_train_passes_its_options_on_from_any_folder(tmp_path: Path) -> None:
    done = script("train.py", "--mode", "pretrain", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--config" in done.stdout


@pytest.mark.parametrize("mode", [["--mode", "sft"], ["--mode=sft"]])
def test_train_refuses_another_mode_in_one_line(tmp_path: Path, mode: list[str]) -> None:
    done = script("train.py", *mode, "--config", "small", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: --mode sft: there is no such mode; use --mode pretrain\n"


def test_train_refuses_an_unknown_preset_in_one_line(tmp_path: Path) -> None:
    done = script("train.py", "--mode", "pretrain", "--config", "smal", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean small?" in done.stderr
    assert done.stderr.count("\n") == 1


def test_follow_advice_names_its_stories_when_it_has_none_of_that_name(tmp_path: Path) -> None:
    done = script("follow_advice.py", "--stories", "earthquake", cwd=tmp_path)
    assert done.returncode == 2
    assert "no such story; there are: learning rate x 300; " in done.stderr


@pytest.mark.parametrize("name", ["bench_data.py", "bench_startup.py"])
def test_what_a_benchmark_measures_is_told_from_any_folder(tmp_path: Path, name: str) -> None:
    done = script(name, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python scripts/{name} " in done.stdout


def test_lab_results_are_kept_with_a_page_of_all_claims(tmp_path: Path) -> None:
    folder = tmp_path / "lab_heads"
    folder.mkdir()
    claims = "- Claim: 8 of 10. heads. Held in part: 0.5 of it.\n- Claim: more. Did not hold: no.\n"
    report = (
        f"# lab heads: many?\n\n{claims}\n4 trainings by `minigpt lab run x.py`. A machine, 2001-01-01.\n"
    )
    (folder / "report.md").write_text(report)
    (folder / "plot.png").write_bytes(b"a plot")
    kept = tmp_path / "kept"

    for _ in range(2):
        done = script("keep_lab_results.py", str(folder), "--results", str(kept), cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")

    assert (kept / "heads.md").read_text() == report + "\n![plot](heads.png)\n"
    assert (kept / "heads.png").read_bytes() == b"a plot"
    said = (kept / "README.md").read_text()
    assert "**[heads](heads.md)**: `minigpt lab run x.py`. A machine, 2001-01-01." in said
    assert "| 8 of 10. heads | held in part |" in said
    assert "2 claims: 1 held in part, 1 did not hold." in said
    nothing = script("keep_lab_results.py", str(tmp_path), "--results", str(kept), cwd=tmp_path)
    assert nothing.returncode == 2
    assert "has no report of a lab command" in nothing.stderr
