"""torch.compile: the same run, sooner; and the same run all the same where it cannot work."""

import shutil
import signal
from pathlib import Path

import pytest
import torch

from minigpt.checkpoint.load import load_newest
from minigpt.model.gpt import GPT
from minigpt.model.loss import LossSums
from minigpt.training.compilation import compile_model
from minigpt.training.loop import Outcome, train
from minigpt.training.run import Run
from tests.training.tiny_run import Workshop, interrupt_at, metrics_of, opened_run

TINY = ("model.num_layers=1", "training.tokens_per_step=64", "training.max_steps=6")


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
def test_compiled_run_is_the_eager_one_to_rounding_and_compiled_once(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: what torch.compile leaves in one would meet other tests."""
    monkeypatch.setenv("TORCH_LOGS", "recompiles")
    eager, compiled = tmp_path / "eager", tmp_path / "compiled"
    process = workshop.start(compiled, *TINY, "training.compile=on")
    with process:
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert "compiled in " in printed
    assert "Recompiling" not in printed
    assert workshop.train(eager, *TINY) == 0
    losses = [[record["loss"] for record in metrics_of(folder)] for folder in (eager, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    states = [torch.load(folder / "checkpoint_step_6.pt") for folder in (eager, compiled)]
    assert list(states[1]["model_state_dict"]) == list(states[0]["model_state_dict"])
    assert (states[0]["position"]["compiled_from"], states[1]["position"]["compiled_from"]) == (None, 0)
    assert states[1]["position"]["best_loss"] == pytest.approx(states[0]["position"]["best_loss"], rel=1e-4)


def test_run_goes_on_eagerly_with_one_line_when_there_is_no_compiler(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, other = tmp_path / "eager", tmp_path / "other"
    for name in ("CXX", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "nonexistent"))
    process = workshop.start(other, *TINY, "model.dropout=0.1", "training.compile=on")
    with process:
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    (line,) = [line for line in printed.splitlines() if "torch.compile does not work here" in line]
    assert "going on without it" in line
    assert "Traceback" not in printed
    # The failed attempt has drawn no random number and left no gradient.
    assert workshop.train(eager, *TINY, "model.dropout=0.1") == 0
    assert metrics_of(other) == metrics_of(eager)
    assert torch.load(other / "checkpoint_step_6.pt")["position"]["compiled_from"] is None


def interrupted_when_compiling(run: Run) -> Outcome:
    """Train, with Ctrl-C as soon as the compiler is announced."""
    say = run.progress.say

    def say_and_interrupt(text: str) -> None:
        say(text)
        if text.startswith("compiling"):
            run.interrupt.signal = signal.SIGINT

    run.progress.say = say_and_interrupt  # type: ignore[method-assign]
    return train(run)


def test_run_compiles_on_resume_when_it_was_interrupted_while_compiling(
    workshop: Workshop, run_dir: Path
) -> None:
    # So long that compiling pays.
    config = workshop.config(*TINY, "training.max_steps=100000000", "training.compile=auto")
    with opened_run(config, run_dir) as run:
        assert interrupted_when_compiling(run) == "interrupted"
    for _ in range(2):
        saved = load_newest(run_dir).state
        assert (saved["step"], saved["position"]["compiled_from"]) == (3, 3)
        assert [record["step"] for record in metrics_of(run_dir)] == [1, 2, 3]
        with opened_run(config, run_dir, saved) as run:
            assert interrupted_when_compiling(run) == "interrupted"


def test_checkpoint_of_the_timed_step_knows_the_choice_when_the_run_is_killed_before_compiling(
    workshop: Workshop, run_dir: Path
) -> None:
    """Resumed from there it has no step of its own to time, and would go on eagerly, in other bits, for good."""
    config = workshop.config(
        *TINY, "training.max_steps=100000000", "training.compile=auto", "checkpoint.every_steps=3"
    )
    with opened_run(config, run_dir) as run:
        say = run.progress.say

        def killed(text: str) -> None:
            say(text)
            if text.startswith("compiling"):
                raise KeyboardInterrupt

        run.progress.say = killed  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            train(run)
    saved = load_newest(run_dir).state
    assert (saved["step"], saved["position"]["compiled_from"]) == (3, 3)
    with opened_run(config, run_dir, saved) as run:
        assert interrupted_when_compiling(run) == "interrupted"
        assert run.position.step == 3


def test_compiled_code_names_its_threads(
    workshop: Workshop, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or inductor's cache may give back what was compiled for other threads, which rounds differently."""
    asked = []
    monkeypatch.setattr(GPT, "compile", lambda self, **options: asked.append(options))
    with opened_run(workshop.config(*TINY), run_dir) as run:
        compile_model(run.model, run.micro_batch_size, run.precision)
    assert asked == [{"dynamic": False, "options": {"cpp.threads": torch.get_num_threads()}}]


def test_compiled_functions_with_a_backward_of_their_own_are_cached(
    workshop: Workshop, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch bypasses its cache for them unless it is told."""
    from torch._functorch import config

    name, forward, seen = "autograd_cache_allow_custom_autograd_functions", GPT.forward, list[bool]()

    def watched(self: GPT, inputs_BT: torch.Tensor, targets_BT: torch.Tensor) -> LossSums:
        seen.append(getattr(config, name))
        return forward(self, inputs_BT, targets_BT)

    monkeypatch.setattr(GPT, "compile", lambda self, **options: None)
    monkeypatch.setattr(GPT, "forward", watched)
    with opened_run(workshop.config(*TINY), run_dir) as run:
        seen.clear()
        assert compile_model(run.model, run.micro_batch_size, run.precision)[1] is None
    assert (seen, getattr(config, name)) == ([True], False)


def test_choice_is_taken_back_when_there_is_no_compiler(
    workshop: Workshop, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = workshop.config(*TINY, "training.max_steps=100000000", "training.compile=auto")
    monkeypatch.setattr("minigpt.training.compiling.compile_model", lambda *_: (0.0, "no compiler here"))
    with opened_run(config, run_dir) as run:
        interrupt_at(run, step=4)
        assert train(run) == "interrupted"
        assert (run.position.step, run.position.compiled_from) == (4, None)


def test_run_compiles_on_resume_when_it_is_told_to_only_then(workshop: Workshop, run_dir: Path) -> None:
    with opened_run(workshop.config(*TINY), run_dir) as run:
        train(run)
    longer = workshop.config(*TINY, "training.max_steps=8", "training.compile=on")
    with opened_run(longer, run_dir, load_newest(run_dir).state) as run:
        assert interrupted_when_compiling(run) == "interrupted"
        assert run.position.step == 6
