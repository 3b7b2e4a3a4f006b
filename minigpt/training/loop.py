"""The training loop: the order of a step is the order of the lines."""

import math
import time
from collections.abc import Callable
from typing import Literal

from minigpt.data.loader import StepBatches, validation_batches
from minigpt.evaluation.loss import evaluate
from minigpt.optim.schedule import lr_at
from minigpt.training.compilation import compile_model, compiling_pays, uncompiled
from minigpt.training.interrupt import Interrupted
from minigpt.training.observe import Observer
from minigpt.training.run import Run
from minigpt.training.save import SaveClock, save
from minigpt.training.step import train_step
from minigpt.training_monitor.action import Action, Stop
from minigpt.training_monitor.grad_flow import check_grad_flow

Outcome = Literal["finished", "interrupted"] | Stop

# The step whose duration decides about compiling: the first one also pays for warming up kernels and memory.
TIMED_STEP = 2


def train(run: Run) -> Outcome:
    """Train until max_steps, an interrupt, or a stop by the monitor; in each case the state is saved."""
    config, position = run.config, run.position
    observer, clock, watch = Observer(run), SaveClock(run.checkpoints.every_minutes), Stopwatch()
    saved_step, last_seconds = position.step, 0.0
    if _evaluation_is_due(run):
        _evaluate(run)
        if _evaluation_is_due(run):
            return "interrupted"
        # Or a kill before the next checkpoint would have it evaluated, and recorded, twice.
        save(run, "evaluated")
    while position.step < config.max_steps:
        if _compiling_is_due(run, last_seconds):
            if not _compile(run):
                break
            watch.restart()
        batches = run.loader.next_step()
        lr = lr_at(position.step, run.schedule, run.learning_rate, config.max_steps)
        result = train_step(run, batches, lr, _grad_flow_check(run))
        _advance(run, batches, result.targets)
        last_seconds = watch.lap()
        action = observer.push(result, lr, last_seconds, batches.position)

        improved = False
        if _evaluation_is_due(run):
            action = _graver(action, observer.drain())
            improved = _evaluate(run)
            watch.restart()
        stopping = run.world.any(bool(run.interrupt) or isinstance(action, Stop))
        due = improved or stopping or position.step % run.checkpoints.every_steps == 0
        if run.world.any(due or clock.is_due() or position.step == config.max_steps):
            action = _graver(action, observer.drain())
            save(run, "best so far" if improved else "stopping" if stopping else "regular")
            saved_step = position.step
            clock.reset()
            watch.restart()
        if isinstance(action, Stop):
            return action
        if stopping and (position.step < config.max_steps or _evaluation_is_due(run)):
            break
    else:
        return "finished"
    if saved_step != position.step:
        observer.drain()
        save(run, "interrupted")
    return "interrupted"


class Stopwatch:
    """Seconds from one step to the next, with all the waiting in between but not what `restart` cuts out."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._mark = time.perf_counter()

    def lap(self) -> float:
        mark, self._mark = self._mark, time.perf_counter()
        return self._mark - mark


def _graver(first: Action, second: Action) -> Action:
    """Both were asked for: a stop must not be forgotten over a later, harmless step."""
    return first if isinstance(first, Stop) else second


def _advance(run: Run, batches: StepBatches, targets: int) -> None:
    run.position.step += 1
    run.position.tokens_seen += targets
    run.position.window = batches.next_position


def _compiling_is_due(run: Run, last_seconds: float) -> bool:
    """Whether the next step is the one before which this run goes over to compiled code."""
    position, wanted = run.position, run.config.compile
    if run.compiling_tried or wanted == "off":
        return False
    if position.compiled_from is not None:
        return position.step >= position.compiled_from
    if wanted == "on":
        return True
    if position.step != TIMED_STEP or run.world.device.type == "mps":
        return False
    pays = compiling_pays(last_seconds, run.config.max_steps - position.step)
    return bool(run.world.from_main(pays))


def _compile(run: Run) -> bool:
    """Go over to compiled code; False on every rank if one was interrupted on the way (nothing is half done then)."""
    run.progress.say("compiling the model for speed (up to a minute or two; Ctrl-C is safe) ...")
    position, interrupted, seconds, error = run.position, False, 0.0, None
    before = position.compiled_from
    # Noted beforehand: a run that is interrupted while compiling compiles when it is resumed.
    position.compiled_from = position.step if before is None else before
    try:
        with run.interrupt.at_once():
            seconds, error = compile_model(run.model, run.micro_batch_size, run.precision)
    except Interrupted:
        interrupted = True
    if run.world.any(interrupted):
        return False
    run.compiling_tried = True
    if error is None:
        run.progress.say(f"compiled in {seconds:.0f} s")
    else:
        position.compiled_from = before
        run.progress.say(f"torch.compile does not work here, going on without it: {error}")
    run.progress.pace_changed()
    return True


def _evaluation_is_due(run: Run) -> bool:
    step = run.position.step
    on_grid = step % run.config.eval_every_steps == 0 or step == run.config.max_steps
    return on_grid and step > 0 and run.position.evaluated_step != step


def _grad_flow_check(run: Run) -> Callable[[], None] | None:
    """The look at all gradients that is due in the coming step, if any."""
    step = run.position.step + 1
    if not (
        run.config.check_grad_flow and run.world.is_main and step % run.config.check_grad_flow_every == 0
    ):
        return None

    def inspect() -> None:
        counts = check_grad_flow(run.model, verbose=False)
        scalars = {f"grad_check/{kind}_params": float(len(names)) for kind, names in counts.items()}
        run.sinks.scalars(step, scalars)

    return inspect


def _evaluate(run: Run) -> bool:
    """Evaluate on the validation split and tell the sinks; whether this is the best so far."""
    with uncompiled(run.model):
        evaluation = evaluate(
            run.model,
            validation_batches(
                run.validation,
                run.micro_batch_size,
                run.config.eval_tokens,
                rank=run.world.rank,
                world_size=run.world.size,
            ),
            bytes_per_token=run.bytes_per_token,
            autocast=run.precision.autocast,
            device=run.world.device,
            reduce_sum=run.world.sum,
            should_stop=lambda: bool(run.interrupt),
        )
    if evaluation is None:
        return False
    position = run.position
    position.evaluated_step = position.step
    results = {
        "loss": evaluation.loss,
        "perplexity": evaluation.perplexity,
        "bits_per_byte": evaluation.bits_per_byte,
    }
    run.sinks.evaluation(position.step, results)
    improved = evaluation.loss < (math.inf if position.best_loss is None else position.best_loss)
    if improved:
        position.best_loss, position.best_step = evaluation.loss, position.step
    return improved
