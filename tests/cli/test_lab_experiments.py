import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minigpt.cli.main import run
from tests.lab.experiments.short_form import write_text


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command line says to a mistake."""
    assert run(list(arguments)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_lab_refuses_a_configuration_that_cannot_be_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert "num_heads" in refusal(capsys, "lab", "stability", "--set", "model.num_heads=3")
    assert not list(tmp_path.iterdir())


def test_lab_refuses_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no such file" in refusal(capsys, "lab", "run", "nowhere.py")


def test_lab_names_the_extra_when_there_is_nothing_to_draw_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    said = refusal(capsys, "lab", "stability", "--short")

    assert "pip install 'minigpt[lab]'" in said
    assert "--no-plot" in said


@pytest.mark.parametrize("option", ["--seeds=0", "--processes=0", "--output="])
def test_lab_refuses_numbers_and_names_that_cannot_be(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert option.partition("=")[0] in refusal(capsys, "lab", "stability", option)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only: its signal")
def test_lab_that_is_interrupted_keeps_what_is_done_and_goes_on(tmp_path: Path) -> None:
    text = write_text(tmp_path / "text")
    command = [sys.executable, "-m", "minigpt", "lab", "norm", "--short", "--no-plot", "--processes", "2"]
    for override in (
        f"data.source={text}",
        "data.tokenizer.kind=bytes",
        "training.max_steps=4",
        "training.eval_tokens=64",
    ):
        command += ["--set", override]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.terminate()
        rest = process.stderr.read().splitlines()

    assert first.startswith("1/8 ")
    *others, kept, said = rest
    assert all(line[1:3] == "/8" for line in others)
    assert kept.endswith(
        "trainings are done and kept in checkpoints/lab_norm_short; the same command goes on"
    )
    assert said == "interrupted"
    assert process.returncode == 130

    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "8 trainings by" in again.stdout
    assert "8/8 " in again.stderr


SLEEPER = """
import os
import time
from pathlib import Path

from minigpt.lab.experiments.experiment import Arm, Experiment, Short


def sleep(run):
    Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
    time.sleep(600)
    return {}


EXPERIMENT = Experiment(
    name="sleeper", question="?", definitions="", arms=(Arm(name="a", before=sleep),), seeds=1,
    short=Short(seeds=1, overrides=()), tables=lambda results: [], claims=lambda results: [],
    draw=lambda results, figure: None,
)
"""


def runs(process: Path) -> bool:
    """Whether the process of this folder in /proc is there, and no zombie that nobody has waited for."""
    try:
        return "Z" not in (process / "stat").read_text().rpartition(")")[2]
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux only: looks at processes")
def test_trainings_end_when_the_command_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    command = [sys.executable, "-m", "minigpt", "lab", "run", "sleeper.py", "--no-plot"]
    for override in (f"data.source={write_text(tmp_path / 'text')}", "data.tokenizer.kind=bytes"):
        command += ["--set", override]
    told = tmp_path / "pid"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PID_FILE": str(told)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        while not told.exists() or not told.read_text():
            assert process.poll() is None
            time.sleep(0.05)
        training = Path("/proc") / told.read_text()
        assert runs(training)
        process.kill()

    deadline = time.monotonic() + 60
    while runs(training):
        assert time.monotonic() < deadline, "it waits for a parent that is gone"
        time.sleep(0.05)
