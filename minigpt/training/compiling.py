"""When a run goes over to compiled code, and how."""

from minigpt.training.compilation import compile_model, compiling_pays
from minigpt.training.interrupt import Interrupted
from minigpt.training.out_of_memory import within_memory
from minigpt.training.run import Run

# The step whose duration decides about compiling: the first one also pays for warming up kernels and memory.
TIMED_STEP = 2


def choose_to_compile(run: Run, last_seconds: float) -> None:
    """With compile auto, note after the timed step whether the run goes over to compiled code.

    Before anything is saved at that step: a run resumed from there has no step of its own to time.
    """
    position = run.position
    undecided = run.config.compile == "auto" and position.compiled_from is None and not run.compiling_tried
    if undecided and position.step == TIMED_STEP and run.world.device.type != "mps":
        pays = compiling_pays(last_seconds, run.config.max_steps - position.step)
        position.compiled_from = position.step if run.world.from_main(pays) else None


def compiling_is_due(run: Run) -> bool:
    """Whether the next step is the one before which this run goes over to compiled code."""
    position, wanted = run.position, run.config.compile
    if run.compiling_tried or wanted == "off":
        return False
    if position.compiled_from is not None:
        return position.step >= position.compiled_from
    return wanted == "on"


def go_over_to_compiled(run: Run) -> bool:
    """Go over to compiled code; False on every rank if one was interrupted on the way (nothing is half done then)."""
    run.progress.say("compiling the model for speed (up to a minute or two; Ctrl-C is safe) ...")
    position, interrupted, seconds, error = run.position, False, 0.0, None
    before = position.compiled_from
    # Noted beforehand: a run that is interrupted while compiling compiles when it is resumed.
    position.compiled_from = position.step if before is None else before
    try:
        with run.interrupt.at_once():
            seconds, error = within_memory(
                run, "compiling", lambda: compile_model(run.model, run.micro_batch_size, run.precision)
            )
    except Interrupted:
        interrupted = True
    if run.world.any(interrupted):
        return False
    run.compiling_tried = True
    if error is None:
        run.progress.say(f"compiled in {seconds:.0f} s")
    else:
        # Chosen at this very step, it has not been done yet.
        position.compiled_from = None if before == position.step else before
        run.progress.say(f"torch.compile does not work here, going on without it: {error}")
    run.progress.pace_changed()
    return True
