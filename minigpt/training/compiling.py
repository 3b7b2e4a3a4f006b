"""When a run goes over to compiled code, and how."""

from minigpt.training.compilation import compile_model
from minigpt.training.compile_costs import CostsFile, cost_and_win
from minigpt.training.interrupt import Interrupted
from minigpt.training.out_of_memory import within_memory
from minigpt.training.run import Run

# The steps by whose duration compiling is decided, at the last of them, by the fastest: the very first also pays for
# warming up kernels and memory, and on a machine that others use a single one may take many times its due.
TIMED_STEPS = (2, 3)
# Compiled steps until it is noted what that has won.
NOTED_STEPS = 6


def weigh_compiling(run: Run, last_seconds: float) -> None:
    """After each step: with compile auto choose, when all is timed, whether the run goes over to compiled code.

    Before anything is saved at that step: a run resumed from there has no step of its own to time. Once it has gone
    over, what that cost and won is noted for the next run of this shape.
    """
    position, pace = run.position, run.pace
    if run.compiling_tried:
        _note(run, last_seconds)
        return
    if run.config.compile != "auto" or position.compiled_from is not None or position.step > TIMED_STEPS[-1]:
        return
    if position.step >= TIMED_STEPS[0]:
        pace.eager_seconds = min(last_seconds, pace.eager_seconds or last_seconds)
    if position.step == TIMED_STEPS[-1] and run.world.device.type != "mps":
        position.compiled_from = position.step if run.world.from_main(_pays(run)) else None


def _pays(run: Run) -> bool:
    """Whether what is left of the run wins back what compiling will cost."""
    assert run.pace.eager_seconds is not None
    cost, win = cost_and_win(
        costs_file(run).read(),
        run.pace.eager_seconds,
        run.config.max_steps - run.position.step,
        num_layers=run.model.config.num_layers,
        reduced_precision=run.precision.name != "off",
    )
    return win > cost


def _note(run: Run, last_seconds: float) -> None:
    """After enough compiled steps, for the next run: how long they take, and how long the eager ones took."""
    pace = run.pace
    pace.compiled_steps += 1
    # The first is still warming up; without eager ones (`compile: on`, resumed) there is nothing to compare.
    if pace.eager_seconds is None or not 1 < pace.compiled_steps <= NOTED_STEPS:
        return
    pace.compiled_seconds = min(last_seconds, pace.compiled_seconds or last_seconds)
    if pace.compiled_steps == NOTED_STEPS and run.world.is_main:
        costs_file(run).add_steps(pace.eager_seconds, pace.compiled_seconds)


def costs_file(run: Run) -> CostsFile:
    """Where it is kept what compiling this run's model costs."""
    shape = {
        "model": run.identity["config"]["model"],
        "vocab_size": run.model.vocab_size,
        "micro_batch_size": run.micro_batch_size,
        "precision": run.precision.name,
        "activation_checkpointing": run.config.activation_checkpointing,
        "world_size": run.world.size,
        "device": run.world.device.type,
    }
    return CostsFile(shape, run.identity["environment"])


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
    costs = costs_file(run)
    known = run.world.on_main(costs.read)
    expected = "up to a minute or two" if known is None else f"about {known.seconds:.0f} s, as before"
    run.progress.say(f"compiling the model for speed ({expected}; Ctrl-C is safe) ...")
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
        run.world.on_main(lambda: costs.add_compiling(seconds))
    else:
        # Chosen at this very step, it has not been done yet.
        position.compiled_from = None if before == position.step else before
        run.progress.say(f"torch.compile does not work here, going on without it: {error}")
    run.progress.pace_changed()
    return True
