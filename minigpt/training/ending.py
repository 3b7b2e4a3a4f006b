"""The end of a run: a sample, what was reached, and how to go on."""

import shlex

from minigpt.checkpoint.files import checkpoint_step
from minigpt.checkpoint.health import last_healthy
from minigpt.errors import CheckpointError
from minigpt.generation.text import stream_text
from minigpt.planning.eta import duration_text
from minigpt.training.compilation import uncompiled
from minigpt.training.folder import TENSORBOARD_NAME, resume_command
from minigpt.training.interrupt import Interrupted
from minigpt.training.loop import Outcome
from minigpt.training.refusals import Unsaved, newest_whole, space_text
from minigpt.training.run import Run
from minigpt.training_monitor.action import Stop

STOPPED_BY_MONITOR = 4


def ended(run: Run, outcome: Outcome, seconds: float) -> int:
    """Say how the run ended; the process's exit code: 0 finished, 128 + signal interrupted, 4 stopped as sick.

    Raises:
        CheckpointError: it finished, and the disk did not take what it reached.
    """
    position, say = run.position, run.progress.say
    unsaved = run.refusals.unsaved
    where = f"saved in {run.run_dir}" if unsaved is None else "NOT saved"
    if isinstance(outcome, Stop):
        say(f"Stopped by the monitor after step {position.step} (cause: {outcome.cause}), {where}.")
        if unsaved is not None:
            say(_what_is_lost(run, unsaved))
        say("\n".join(["Verdict: " + outcome.reason, *run.monitor.verdict(outcome.cause)]))
        say(f"After mending the cause: {resume_command(run.run_dir)} --set ...")
        healthy = last_healthy(run.run_dir) if run.world.is_main else None
        if healthy is not None and healthy.step != position.step:
            say(f"From the last healthy checkpoint: {resume_command(healthy.path)} --set ...")
        return STOPPED_BY_MONITOR
    if outcome == "interrupted":
        say(f"Interrupted after step {position.step}, {where}. To go on: ")
        say(f"  {resume_command(run.run_dir)}")
        if unsaved is not None:
            say(_what_is_lost(run, unsaved))
        return run.interrupt.exit_code
    run.world.on_main(lambda: _refuse_unsaved(run))
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


def _refuse_unsaved(run: Run) -> None:
    if run.refusals.unsaved is not None:
        raise CheckpointError(
            f"all {run.position.step} steps are done, and NOT saved: {_what_is_lost(run, run.refusals.unsaved)}"
        )


def _what_is_lost(run: Run, unsaved: Unsaved) -> str:
    """One line: since when, why, and how to get it back."""
    whole = newest_whole(run.run_dir)
    problem = f"{unsaved.reason}{space_text(run.run_dir)}, refused since step {unsaved.step}"
    if whole is None:
        return f"{problem}; there is no whole checkpoint to go on from"
    steps = run.position.step - (checkpoint_step(whole) or 0)
    return (
        f"{problem}; the newest whole checkpoint is {whole}, and to go on from it repeats {steps} steps: "
        f"first {unsaved.way_out}, then {resume_command(run.run_dir)}"
    )


def _sample(run: Run) -> str:
    """A new document by the model, between rulers."""
    with uncompiled(run.model), run.precision.autocast():
        pieces = stream_text(
            run.model, run.tokenizer, "", max_new_tokens=run.config.sample_tokens, seed=run.config.seed
        )
        text = "".join(pieces)
    ruler = "-" * 60
    return f"{ruler}\n{text}\n{ruler}"
