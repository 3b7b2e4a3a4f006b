"""The training loop: the order of a step is the order of the lines."""

import math
from collections.abc import Callable
from typing import Literal

from minigpt.checkpoint.files import checkpoint_path
from minigpt.data.loader import StepBatches
from minigpt.errors import DataError, OutOfMemoryError
from minigpt.evaluation.loss import Evaluation, evaluate
from minigpt.training.compilation import uncompiled
from minigpt.training.compiling import compiling_is_due, go_over_to_compiled, weigh_compiling
from minigpt.training.observe import Observer
from minigpt.training.out_of_memory import within_memory
from minigpt.training.rate import learning_rate_of, lower_learning_rate
from minigpt.training.rollback import roll_back
from minigpt.training.run import Run
from minigpt.training.save import SaveClock, retry_is_due, save
from minigpt.training.step import StepResult, train_step
from minigpt.training.stopwatch import Stopwatch
from minigpt.training.supply import ValidationSupply, next_batches
from minigpt.training_monitor.action import Action, RollBack, ScaleLearningRate, Stop, graver
from minigpt.training_monitor.grad_flow import check_grad_flow

Outcome = Literal["finished", "interrupted"] | Stop


def train(run: Run) -> Outcome:
    """Train until max_steps, an interrupt, or a stop by the monitor; the state is saved, or in `run.refusals`.

    Raises:
        CheckpointError: the disk refused a checkpoint, and the run is to stop then.
        DataError: on every rank, when one cannot read its data; the state is saved.
        OutOfMemoryError: a step does not fit; the state before it is saved, if it is whole and there is one rank.
    """
    while True:
        observer = Observer(run)
        try:
            outcome = _train_on(run, observer)
        except DataError as error:
            # The state after the last finished step is whole, whatever could not be read for the next.
            outcome = _left(run, observer, f"no more data: {error}")
            if not isinstance(outcome, RollBack):
                raise DataError(f"{error} ({_saved_text(run)}; then go on with --resume)") from error
        except OutOfMemoryError as error:
            # Saving needs every rank, and the others wait in the middle of a step.
            if not error.between_steps or run.world.size > 1:
                raise
            _left(run, observer, "out of memory")
            text = f"{error} ({_saved_text(run)}; go on with --resume)"
            raise OutOfMemoryError(text, between_steps=True) from error
        if not isinstance(outcome, RollBack):
            return outcome
        stop = roll_back(run, outcome)
        if stop is not None:
            return stop


def _train_on(run: Run, observer: Observer) -> Outcome | RollBack:
    """Train from where the run stands, as after a resume. At a RollBack nothing has been saved."""
    config, position = run.config, run.position
    clock, watch = SaveClock(run.checkpoints.every_minutes), Stopwatch()
    if not _made_up_for_evaluation(run):
        return "interrupted"
    while position.step < config.max_steps:
        if compiling_is_due(run):
            if not go_over_to_compiled(run):
                break
            watch.restart()
        action = _next_step(run, observer, watch)
        if action is None:
            break
        weigh_compiling(run, watch.last_lap)
        improved = False
        if _evaluation_is_due(run):
            action = graver(action, observer.drain())
            improved = _evaluate(run)
            watch.restart()
        action, stopping = _agreed(run, action)
        due = improved or stopping or position.step % run.checkpoints.every_steps == 0
        due = due or clock.is_due() or retry_is_due(run)
        due = run.world.any(due or position.step == config.max_steps)
        if due:
            action, stopping = _agreed(run, graver(action, observer.drain()))
        if isinstance(action, RollBack):
            # For the record, should the run end here; what that step asks for is undone with it.
            observer.drain()
            return action
        _heed(run, action, observer)
        if due:
            save(run, "best so far" if improved else "stopping" if stopping else "regular", ends=stopping)
            clock.reset()
            watch.restart()
        if isinstance(action, Stop):
            return action
        if stopping and (position.step < config.max_steps or _evaluation_is_due(run)):
            break
    else:
        return "finished"
    return _left(run, observer, "interrupted")


def _next_step(run: Run, observer: Observer, watch: Stopwatch) -> Action | None:
    """Train one step; what the monitor asks for after the newest one that it could read. None: interrupted before."""
    lr = learning_rate_of(run)
    run.skip_above = run.monitor.skip_above(run.position.step + 1)

    def one_step() -> tuple[StepBatches, StepResult] | None:
        batches = next_batches(run)
        if batches is None:
            return None
        observer.begin(batches)
        return batches, train_step(run, batches, lr, _grad_flow_check(run))

    made = within_memory(run, f"step {run.position.step + 1}", one_step)
    if made is None:
        return None
    batches, result = made
    _advance(run, batches, result.targets)
    return observer.push(result, lr, watch.lap(), batches.position)


def _left(run: Run, observer: Observer, reason: str) -> Outcome | RollBack:
    """Saved where this step is not yet, unless what was still to be read calls for a rollback first: a checkpoint would
    have it forgotten."""
    path = checkpoint_path(run.run_dir, run.position.step)
    if run.world.from_main(path.exists()):
        return "interrupted"
    action, _ = _agreed(run, observer.drain())
    if isinstance(action, RollBack):
        return action
    _heed(run, action, observer)
    save(run, "stopping" if isinstance(action, Stop) else reason, ends=True)
    return action if isinstance(action, Stop) else "interrupted"


def _saved_text(run: Run) -> str:
    unsaved = run.refusals.unsaved
    return f"the run is {'saved' if unsaved is None else f'NOT saved ({unsaved.reason})'} at step {run.position.step}"


def _agreed(run: Run, action: Action) -> tuple[Action, bool]:
    """What all ranks do, and whether the run is to end: some signals are a rank's own, so the main rank decides."""
    heeded = isinstance(action, ScaleLearningRate | RollBack | Stop)
    if not run.world.any(heeded or bool(run.interrupt)):
        return action, False
    action = run.world.from_main(action)
    return action, run.world.any(bool(run.interrupt)) or isinstance(action, Stop)


def _heed(run: Run, action: Action, observer: Observer) -> None:
    if isinstance(action, Stop):
        observer.keep(action)
    if isinstance(action, ScaleLearningRate):
        # From the step on that no host has begun yet, however late it reads: resumed or not, on any device.
        since = action.step + 1
        lower_learning_rate(run, since, action.factor, action.steps, action.rewarm_steps)


def _advance(run: Run, batches: StepBatches, targets: int) -> None:
    run.position.step += 1
    run.position.tokens_seen += targets
    run.position.window = batches.next_position


def _made_up_for_evaluation(run: Run) -> bool:
    """Evaluate where a checkpoint was taken before its evaluation was done; False: interrupted again."""
    if _evaluation_is_due(run):
        _evaluate(run)
        if _evaluation_is_due(run):
            return False
        # Or a kill before the next checkpoint would have it evaluated, and recorded, twice.
        save(run, "evaluated")
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
    evaluation = within_memory(run, f"the evaluation after step {run.position.step}", lambda: _evaluated(run))
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


def _evaluated(run: Run) -> Evaluation | None:
    """The model on the validation split; None where the user wants to stop."""
    supply = ValidationSupply(run)
    with uncompiled(run.model):
        evaluation = evaluate(
            run.model,
            supply,
            bytes_per_token=run.bytes_per_token,
            autocast=run.precision.autocast,
            device=run.world.device,
            reduce_sum=run.world.sum,
            should_stop=lambda: bool(run.interrupt),
        )
    if evaluation is None:
        supply.check()
    return evaluation
