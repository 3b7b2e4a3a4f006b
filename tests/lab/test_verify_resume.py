"""`minigpt verify-resume`: the verdict where all is exact, where a resume is not, and where the machine is not."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.cli import main as command_line
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.lab.verify_resume import leg as leg_module
from minigpt.lab.verify_resume import process, runs
from minigpt.lab.verify_resume.leg import Leg
from minigpt.lab.verify_resume.rhythm import FEWEST_STEPS, Rhythm, rhythm_of
from minigpt.lab.verify_resume.runs import Question
from minigpt.lab.verify_resume.verify import NOT_EXACT, verify_resume
from minigpt.model import init
from minigpt.training import build, state
from tests.training.tiny_run import REPOSITORY, Workshop

STEPS = 9


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    yield Workshop.set_up(tmp_path)
    torch.set_num_threads(threads)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Legs as forks of this process: real processes, really killed, that have nothing to import."""

    def run_leg(title: str, leg: Leg, *_: Any, **__: Any) -> float:
        log = Path(leg.folder).with_name(f"{title}.log")
        child = os.fork()
        if child == 0:
            with log.open("w") as output, redirect_stdout(output), redirect_stderr(output):
                code = leg_module.main(leg.as_argument())
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != leg.expected_exit:
            raise process._failure(title, code, log)
        return 1.0

    monkeypatch.setattr(runs, "run_leg", run_leg)


def question(workshop: Workshop, *overrides: str, output: Path | None = None) -> Question:
    return Question(workshop.config_path, overrides, STEPS, output)


def test_command_proves_a_run_exact_and_leaves_nothing_behind(workshop: Workshop) -> None:
    """As a user types it, from a folder with an own corpus named by a relative path."""
    settings = [
        "data.source=corpus",
        "model.dropout=0.1",
        "training.mixed_precision=fp16",
        "training.max_steps=40",
    ]
    sets = [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "minigpt", "verify-resume", "--config", "tiny.yaml", "--steps", "9", *sets],
        cwd=workshop.folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bit-exact: " in done.stdout.splitlines()[-1]
    assert "9 steps of metrics.jsonl" in done.stdout
    assert "SIGKILL in step 6" in done.stdout
    assert sorted(path.name for path in workshop.folder.iterdir()) == ["cache", "corpus", "tiny.yaml"]


@pytest.mark.usefixtures("forked")
def test_resume_is_told_when_it_forgets_the_random_states(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(state, "restore_rng", lambda *_: None)
    assert verify_resume(question(workshop, "model.dropout=0.1"), print) == NOT_EXACT
    printed = capsys.readouterr().out
    assert "two straight runs are the same to the last bit, and the interrupted one is not" in printed
    assert "first in step 5 loss: " in printed
    assert "number 1 after the resume from step 4" in printed
    (kept,) = (workshop.folder / "checkpoints").iterdir()
    assert f"the runs are kept in checkpoints/{kept.name}" in printed
    assert (kept / "interrupted" / "checkpoint_step_9.pt").is_file()


@pytest.mark.usefixtures("forked")
def test_machine_is_told_when_two_straight_runs_differ(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Noise that goes with training.deterministic: what helps is found by trying, and can be typed as it is told."""
    own = init.initialize

    def noisy(model: Any, seed: int) -> None:
        own(model, seed)
        if not torch.are_deterministic_algorithms_enabled():
            with torch.no_grad():
                model.embedding.weight[0] += os.getpid() * 1e-6

    monkeypatch.setattr(build, "initialize", noisy)
    asked = question(workshop, "training.deterministic=off", output=workshop.folder / "elsewhere")
    assert verify_resume(asked, print) == NOT_EXACT
    printed = capsys.readouterr().out
    assert "training itself is not deterministic here" in printed
    assert "with --set training.deterministic=on two straight runs are the same to the last bit" in printed
    command = (
        f"minigpt verify-resume --config {workshop.config_path} --set training.deterministic=on --steps 9"
    )
    assert f"  {command}" in printed.splitlines()
    assert list((workshop.folder / "elsewhere").iterdir())


@pytest.mark.usefixtures("forked")
def test_nothing_stays_and_one_line_says_why_when_the_run_cannot_be_made(workshop: Workshop) -> None:
    with pytest.raises(MiniGPTError, match=r"tokens_per_step = 128 .* micro_batch_size") as caught:
        verify_resume(question(workshop, "training.micro_batch_size=3"), print)
    assert "\n" not in str(caught.value)
    assert not (workshop.folder / "checkpoints").exists()


def test_the_printed_is_kept_and_shown_when_a_leg_crashes(workshop: Workshop) -> None:
    crash = (sys.executable, "-c", "print('out of luck'); raise SystemExit(1)")
    asked = Question(workshop.config_path, (), STEPS, None, command=crash)
    with pytest.raises(
        process.LegFailedError, match=r"ended with exit code 1: out of luck \(all it printed"
    ) as caught:
        verify_resume(asked, print)
    assert "straight.log" in str(caught.value)
    assert list(workshop.folder.glob("checkpoints/verify_resume_tiny_*/straight.log"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_all_is_ended_and_removed_when_the_user_interrupts(
    number: signal.Signals, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    """The leg signals this process, as a terminal would, and does not end by itself."""
    program = (
        "import os, time; open('pid', 'w').write(str(os.getpid())); "
        f"os.kill(os.getppid(), {int(number)}); time.sleep(600)"
    )
    asked = Question(workshop.config_path, (), STEPS, None, command=(sys.executable, "-c", program))
    assert verify_resume(asked, print) == 128 + number
    assert "interrupted: nothing was verified" in capsys.readouterr().out
    assert not (workshop.folder / "checkpoints").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((workshop.folder / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--steps", "8"], "--steps 8: too few"),
        (["--set", "training.max_steps=5"], "training.max_steps = 5"),
        (["--set", "training.device=cuda:7"], "cuda:7"),
        (["--config", "nonesuch"], "nonesuch"),
    ],
)
def test_command_refuses_in_one_line(
    arguments: list[str], told: str, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    config = [] if "--config" in arguments else ["--config", workshop.config_path]
    assert command_line.run(["verify-resume", *config, *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert (told in printed.err, printed.err.count("\n")) == (True, 1)
    assert not (workshop.folder / "checkpoints").exists()


@pytest.mark.parametrize("steps", [*range(FEWEST_STEPS, 40), 200])
def test_rhythm_kills_between_checkpoints_and_ends_off_an_evaluation(steps: int) -> None:
    rhythm = Rhythm(steps, finishes=False)
    on_disk = {step for step in range(1, steps + 1) if step % rhythm.checkpoint_every == 0}
    evaluated = {step for step in range(1, steps + 1) if step % rhythm.evaluate_every == 0}
    assert rhythm.kill_in - 1 not in on_disk | evaluated
    assert steps not in evaluated
    assert min(on_disk | evaluated) < rhythm.kill_in < rhythm.terminate_in < steps
    assert {step for step in evaluated if step < rhythm.kill_in}
    # Something is left to go wrong after each resume.
    assert rhythm.terminate_in - rhythm.kill_in >= 1


def test_rhythm_leaves_rates_and_length_alone(workshop: Workshop) -> None:
    config = workshop.config("training.max_steps=4000")
    settings = rhythm_of(config, 12).settings(config)
    assert not [
        line for line in settings if line.startswith(("schedule.", "optimizer.", "training.max_steps"))
    ]
    assert workshop.config("training.max_steps=4000", *settings).training.eval_tokens == 128
    with pytest.raises(ConfigError, match="too short"):
        rhythm_of(workshop.config("training.max_steps=8"), 12)
