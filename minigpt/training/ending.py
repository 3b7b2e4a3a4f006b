"""The end of a run: a sample, what was reached, and how to go on."""

import shlex
from pathlib import Path

from minigpt.checkpoint.health import last_healthy
from minigpt.generation.text import stream_text
from minigpt.planning.eta import duration_text
from minigpt.training.compilation import uncompiled
from minigpt.training.folder import TENSORBOARD_NAME
from minigpt.training.interrupt import Interrupted
from minigpt.training.loop import Outcome
from minigpt.training.run import Run
from minigpt.training_monitor.action import Stop

STOPPED_BY_MONITOR = 4


def ended(run: Run, outcome: Outcome, seconds: float) -> int:
    """Say how the run ended; the process's exit code: 0 finished, 128 + signal interrupted, 4 stopped as sick."""
    position, say = run.position, run.progress.say
    if isinstance(outcome, Stop):
        say(
            f"Stopped by the monitor after step {position.step} (cause: {outcome.cause}), saved in {run.run_dir}."
        )
        say("\n".join(["Verdict: " + outcome.reason, *run.monitor.verdict(outcome.cause)]))
        say(f"After mending the cause: {resume_command(run.run_dir)} --set ...")
        healthy = last_healthy(run.run_dir) if run.world.is_main else None
        if healthy is not None and healthy.step != position.step:
            say(f"From the last healthy checkpoint: {resume_command(healthy.path)} --set ...")
        return STOPPED_BY_MONITOR
    if outcome == "interrupted":
        say(f"Interrupted after step {position.step}, saved in {run.run_dir}. To go on: ")
        say(f"  {resume_command(run.run_dir)}")
        return run.interrupt.exit_code
    say(f"Finished {position.step} steps, {position.tokens_seen:,} tokens, in {duration_text(seconds)}.")
    if position.best_loss is not None:
        say(f"Best validation loss {position.best_loss:.4f} at step {position.best_step}.")
    if run.config.sample_tokens and run.world.is_main:
        try:
            with run.interrupt.at_once():
                say("A sample:\n" + _sample(run))
        except Interrupted:
            say("No sample: interrupted.")
    say(f"Curves:   tensorboard --logdir {shlex.quote(str(run.run_dir / TENSORBOARD_NAME))}")
    say(f"Generate: python -m minigpt generate {shlex.quote(str(run.run_dir))} --prompt 'def '")
    return 0


def resume_command(place: Path) -> str:
    """What to type to go on with a run, whatever it was started with: its folder knows the configuration."""
    return f"python -m minigpt train --resume {shlex.quote(str(place))}"


def _sample(run: Run) -> str:
    """A new document by the model, between rulers."""
    with uncompiled(run.model), run.precision.autocast():
        pieces = stream_text(
            run.model, run.tokenizer, "", max_new_tokens=run.config.sample_tokens, seed=run.config.seed
        )
        text = "".join(pieces)
    ruler = "-" * 60
    return f"{ruler}\n{text}\n{ruler}"
