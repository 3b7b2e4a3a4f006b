"""A whole pretraining run: from what the user typed to weights, a verdict and how to go on."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.checkpoint.load import Loaded
from minigpt.checkpoint.lock import HeldFolder, locked_folder
from minigpt.config.load import load_config
from minigpt.data.prepare import Prepared, prepare
from minigpt.data.progress import PreparationStoppedError
from minigpt.distributed.device import device_title
from minigpt.distributed.world import World, joined_world
from minigpt.errors import CheckpointError
from minigpt.planning.available import available_bytes
from minigpt.planning.memory import memory_report
from minigpt.planning.micro_batch import fitting_micro_batch
from minigpt.planning.plan import RunPlan
from minigpt.training.aside import set_aside, set_newer_aside, whole_or_nothing
from minigpt.training.build import build_run, workload
from minigpt.training.disk import disk_warnings
from minigpt.training.ending import ended
from minigpt.training.folder import (
    check_log_file,
    check_name,
    default_run_dir,
    describe_run,
    refuse_foreign,
    resume_command,
    writing_to,
)
from minigpt.training.identity import Order
from minigpt.training.interrupt import Interrupt, Interrupted, caught_signals
from minigpt.training.loop import train
from minigpt.training.progress import say_line
from minigpt.training.records import LOG_FILE, open_records, record_differences
from minigpt.training.resume import corpus_of_run, health_warnings, is_newest, resumed_order, what_differs
from minigpt.training.run import Run
from minigpt.training.save import let_go, save_first
from minigpt.training.state import restore_state
from minigpt.training_monitor.event import Event


def pretrain(
    config_name: str | None,
    overrides: Sequence[str],
    run_dir: Path | None,
    resume: str | None,
    *,
    when_built: Callable[[Run], None] = lambda run: None,
) -> int:
    """Train, or go on training; the exit code (0 finished, 4 stopped by the monitor, 128 + signal interrupted).

    `when_built` is called with the run before anything of it is on disk: for experiments.

    Raises:
        MiniGPTError: a mistake of the user's; nothing was lost and nothing half-written.
    """
    with writing_to(run_dir or Path(resume or "checkpoints")):
        order, loaded, warnings = _order(config_name, overrides, run_dir, resume)
    check_name(order.run_dir)
    if not _goes_on(order, loaded):
        refuse_foreign(order.run_dir)
    with ExitStack() as stack:
        stack.enter_context(writing_to(order.run_dir))
        interrupt = stack.enter_context(caught_signals())
        world = stack.enter_context(joined_world(order.config.training.device))
        say = say_line if world.is_main else _silence
        for line in warnings:
            say(f"warning: {line}")
        # At once: not after minutes of preparing for a folder that is another's.
        held = world.on_main(lambda: stack.enter_context(locked_folder(order.run_dir)))
        world.on_main(lambda: _refuse_overtaken(order, loaded, resume))
        try:
            prepared, notes = _corpus(order, loaded, world, interrupt)
        except (Interrupted, PreparationStoppedError):
            say("Interrupted while preparing the corpus; nothing was lost, the same command starts again.")
            return interrupt.exit_code
        # Before the model takes its share of it.
        available = available_bytes(world.device)
        run = build_run(order, prepared, world, interrupt, stack, loaded.state if loaded else None)
        run.held = held
        if loaded is not None:
            notes += restore_state(run, loaded.state)
        when_built(run)
        for line in world.on_main(lambda: _plan(run, order, loaded, prepared, available)) or ():
            say(line)
        # Up to here nothing on disk has changed: whatever did not fit has been refused.
        aside = world.on_main(lambda: _clear_the_way(order, loaded))
        is_new = world.is_main and not _goes_on(order, loaded)
        with whole_or_nothing(order.run_dir, aside) if is_new else nullcontext():
            world.on_main(lambda: _open_folder(run, stack))
            if not _goes_on(order, loaded):
                # From the very first second there is something to resume, and a disk that refuses is met now.
                save_first(run)
            else:
                world.on_main(lambda: let_go(run))
        if aside is not None:
            _tell_aside(order.run_dir, aside)
        if loaded is not None:
            notes += _killed_before(held, loaded) if _goes_on(order, loaded) else []
            notes += record_differences(run, loaded.state) if _goes_on(order, loaded) else []
            notes += what_differs(order, loaded.state, run.identity["environment"])
            _tell_resume(run, loaded, notes)
        run.progress.start(run.position.step)
        started_at = time.monotonic()
        with writing_to(order.run_dir, "the checkpoints are whole; go on with --resume"):
            outcome = train(run)
        run.progress.close()
        return ended(run, outcome, time.monotonic() - started_at)


def _order(
    config_name: str | None, overrides: Sequence[str], run_dir: Path | None, resume: str | None
) -> tuple[Order, Loaded | None, list[str]]:
    """What to do, the checkpoint to go on from, and warnings."""
    if resume is not None:
        order, loaded = resumed_order(config_name, overrides, run_dir, resume)
        damaged = [f"skipped a damaged checkpoint: {line}" for line in loaded.damaged]
        return order, loaded, [*damaged, *health_warnings(loaded)]
    found = load_config(config_name or "small", overrides)
    run_dir = run_dir or default_run_dir("pretrain", found.name)
    return Order(found.name, run_dir, found.config, tuple(overrides)), None, list(found.warnings)


def _corpus(
    order: Order, loaded: Loaded | None, world: World, interrupt: Interrupt
) -> tuple[Prepared, list[str]]:
    """The prepared corpus: made by the main rank, then opened from the cache by the others."""

    def get() -> tuple[Prepared, list[str]]:
        if loaded is not None:
            return corpus_of_run(order, loaded, lambda: bool(interrupt))
        return prepare(order.config.data, progress=world.is_main, should_stop=lambda: bool(interrupt)), []

    with interrupt.at_once():
        found = world.on_main(get)
        return get() if found is None else found


def _goes_on(order: Order, loaded: Loaded | None) -> bool:
    """Whether the run stays in the folder that its checkpoint lies in."""
    return loaded is not None and loaded.path.parent.resolve() == order.run_dir.resolve()


def _refuse_overtaken(order: Order, loaded: Loaded | None, resume: str | None) -> None:
    """Nothing, unless another process has trained on in the folder since its newest checkpoint was read.

    Raises:
        CheckpointError: it has.
    """
    if loaded is None or resume is None or not _goes_on(order, loaded) or not is_newest(resume):
        return
    newer = [step for step in checkpoints_by_step(order.run_dir) if step > loaded.state["step"]]
    if len(newer) > len(loaded.damaged):
        raise CheckpointError(
            f"{order.run_dir} was trained on by another process until just now; start again to go on from there"
        )


def _clear_the_way(order: Order, loaded: Loaded | None) -> Path | None:
    """Nothing of an earlier run is ever overwritten: what stands in the way is moved aside.

    Where the whole folder's content went, if it did.
    """
    check_log_file(LOG_FILE)
    if loaded is not None and _goes_on(order, loaded):
        with writing_to(order.run_dir):
            newer = set_newer_aside(order.run_dir, loaded.state["step"])
        if newer is not None:
            say_line(f"checkpoints after step {loaded.state['step']} were moved to {newer}")
        return None
    with writing_to(order.run_dir):
        return set_aside(order.run_dir)


def _tell_aside(run_dir: Path, aside: Path) -> None:
    say_line(f"an earlier run in {run_dir} was moved to {aside}")
    if checkpoints_by_step(aside):
        say_line(f"(to go on with it instead: {resume_command(aside)})")


def _open_folder(run: Run, stack: ExitStack) -> None:
    with writing_to(run.run_dir):
        describe_run(run)
        open_records(run, stack)


def _plan(
    run: Run, order: Order, loaded: Loaded | None, prepared: Prepared, available: int | None
) -> list[str]:
    """What the run will do, with warnings, for people."""
    config, world = order.config, run.world
    work = workload(config, world, run.precision, prepared.manifest.vocab_size, run.micro_batch_size)
    sequences = config.training.tokens_per_step // (config.model.context_length * world.size)
    report = memory_report(work)
    disk = disk_warnings(
        order.run_dir,
        config.checkpoint,
        config.training.max_steps,
        report.checkpoint_file,
        goes_on=_goes_on(order, loaded),
    )
    fitting = fitting_micro_batch(work, sequences_per_rank_step=sequences, available_bytes=available)
    source = config.data.source
    plan = RunPlan(
        name=run.name,
        parameters=sum(parameter.numel() for parameter in run.model.parameters()),
        context_length=config.model.context_length,
        max_steps=config.training.max_steps,
        micro_batch_size=run.micro_batch_size,
        grad_accum_steps=sequences // run.micro_batch_size,
        world_size=world.size,
        corpus=source if isinstance(source, str) else ", ".join(source),
        corpus_tokens=prepared.manifest.train.tokens,
        memory=report,
        available_bytes=None
        if available is None
        else available // (1 if world.device.type == "cuda" else world.size),
        fitting_micro_batch_size=fitting,
        device=device_title(world.device),
        precision={"off": "fp32"}.get(run.precision.name, run.precision.name + " autocast"),
        compile=f"compile {config.training.compile}" + (", buffers kept" if run.buffers_kept else ""),
    )
    return [
        f"Run:       {run.name} in {run.run_dir}",
        *plan.lines(),
        *(f"warning: {line}" for line in [*plan.warnings(), *disk]),
    ]


def _tell_resume(run: Run, loaded: Loaded, lines: list[str]) -> None:
    text = "\n  ".join([f"Resumed from {loaded.path}", *lines])
    run.progress.say(text)
    run.sinks.event(Event(run.position.step, "resume", "resume", text))


def _killed_before(held: HeldFolder | None, loaded: Loaded) -> list[str]:
    """A line where the session before ended without a word: people wonder, and the log of the system may tell."""
    if held is None or held.left_by is None:
        return []
    return [
        f"the session before ({held.left_by}) ended without a word: killed (kill -9, out of memory: see dmesg), or the "
        f"machine went down; what it did after step {loaded.state['step']} is repeated"
    ]


def _silence(line: str) -> None:
    """The other ranks say nothing."""
