"""Back to a healthy checkpoint and past the data that were read since, in the running process (PaLM, 5.1)."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigpt.checkpoint.health import before_trouble
from minigpt.checkpoint.load import load_checkpoint
from minigpt.data.shards import DocumentIndex
from minigpt.errors import CheckpointError, DataError
from minigpt.training.aside import set_newer_aside
from minigpt.training.rate import lower_learning_rate
from minigpt.training.records import open_sinks
from minigpt.training.run import Position, Run
from minigpt.training.save import save
from minigpt.training.state import restore_state
from minigpt.training_monitor.action import RollBack, Stop, action_event
from minigpt.training_monitor.event import Event

NAMED_DOCUMENTS = 5

WORDS = {
    "en": {
        "done": "Rolled back from step {from_step} to checkpoint_step_{to_step}.pt ({cause} since step {opened_at}; "
        "rollback {number} of {most}).\n"
        "   Data: goes on at window {to_window}, past {windows} windows{documents}.",
        "documents": " out of {count} documents ({names})",
        "lowered": "   Learning rate: x {factor:g} for {steps} steps, then back up over {rewarm}.",
        "aside": "   Later checkpoints and the records until then: {aside}",
        "spent": "{cause} since step {opened_at}, after {most} rollback(s), as many as monitor.policy.max_rollbacks "
        "allows",
        "nowhere": "{cause} since step {opened_at}, and there is no healthy checkpoint from before it to go back to",
    },
    "zh": {
        "done": "已从第 {from_step} 步回退到 checkpoint_step_{to_step}.pt（自第 {opened_at} 步起 {cause}；"
        "第 {number} 次回退，最多 {most} 次）。\n"
        "   数据：从窗口 {to_window} 继续，跳过 {windows} 个窗口{documents}。",
        "documents": "，来自 {count} 个文档（{names}）",
        "lowered": "   学习率：乘以 {factor:g}，持续 {steps} 步，再用 {rewarm} 步恢复。",
        "aside": "   之后的检查点和此前的记录：{aside}",
        "spent": "自第 {opened_at} 步起 {cause}，已回退 {most} 次，达到 monitor.policy.max_rollbacks 的上限",
        "nowhere": "自第 {opened_at} 步起 {cause}，而此前没有健康的检查点可以回退",
    },
}


@dataclass(frozen=True)
class _Skipped:
    """The data that the run passes over."""

    start: int
    stop: int
    """Windows consumed since the start of the run; the run goes on at `stop`."""
    documents: tuple[str, ...]


def roll_back(run: Run, action: RollBack) -> Stop | None:
    """Take the run back and past the trouble, and save it there; Stop where that cannot be (again).

    Until the last line a kill leaves what was before: the same trouble, met again, has the same answer.
    """
    policy, words = run.monitor.config.policy, WORDS[run.monitor.config.language]
    if run.position.rollbacks >= policy.max_rollbacks:
        return _stopped(run, action, words["spent"])
    path = run.world.from_main(_checkpoint_before(run, action.opened_at) if run.world.is_main else None)
    if path is None:
        return _stopped(run, action, words["nowhere"])
    before = run.position
    restore_state(run, load_checkpoint(path))
    # What a host that reads late has read by now, so that a run on any device, or resumed, goes on at the same place.
    read = action.step + 1 - before.step
    start = run.position.window
    stop = before.window + (read + policy.rollback_margin_steps) * run.loader.windows_per_step
    run.position = _position_past(run.position, before, stop)
    run.loader.load_state_dict({"position": stop})
    if run.position.rollbacks > 1:
        since, factor = run.position.step, policy.lower_lr_factor
        lower_learning_rate(run, since, factor, policy.lower_lr_steps, policy.rewarm_steps)
    run.world.on_main(
        lambda: _record(run, action, before.step, _Skipped(start, stop, _documents(run, start, stop)))
    )
    save(run, "rolled back")
    return None


def _checkpoint_before(run: Run, opened_at: int) -> Path | None:
    """The newest healthy checkpoint from before the trouble that can be read."""
    for health in before_trouble(run.run_dir, opened_at, run.monitor.config.policy.quarantine_steps):
        try:
            load_checkpoint(health.path)
        except CheckpointError:
            continue
        return health.path
    return None


def _position_past(restored: Position, before: Position, window: int) -> Position:
    """Where the run goes on: the checkpoint's counters, but for what does not go back."""
    compiled_from = restored.compiled_from
    if before.compiled_from is not None:
        # This process computes compiled from here on, and so does one that resumes it.
        compiled_from = min(before.compiled_from, restored.step)
    return replace(restored, window=window, rollbacks=before.rollbacks + 1, compiled_from=compiled_from)


def _documents(run: Run, start: int, stop: int) -> tuple[str, ...]:
    """The documents that the windows between begin in, in the order of their reading; () where it cannot be told."""
    windows = run.loader.windows
    try:
        index = DocumentIndex(Path(run.identity["corpus"]["folder"]), "train")
        names = [index.at(windows.start(window))[0] for window in run.loader.windows_at(start, stop - start)]
    except DataError:  # the cache was cleared or damaged
        return ()
    return tuple(dict.fromkeys(names))


def _record(run: Run, action: RollBack, from_step: int, skipped: _Skipped) -> None:
    """Discard what the run's folder holds of later steps, as a resume does, and say what was done."""
    with suppress(OSError):  # of the steps that stay all is written: their checkpoint vouches for them
        run.sinks.flush()
    # Read later on to see what had happened: the records themselves go back.
    aside = set_newer_aside(run.run_dir, run.position.step, records=True)
    run.sinks.close()
    run.sinks = open_sinks(run)
    data: dict[str, Any] = {
        "cause": action.cause,
        "opened_at": action.opened_at,
        "from_step": from_step,
        "to_step": run.position.step,
        "skipped_from_window": skipped.start,
        "skipped_to_window": skipped.stop,
        "skipped_documents": len(skipped.documents),
        "first_documents": list(skipped.documents[:NAMED_DOCUMENTS]),
        "rollbacks": run.position.rollbacks,
        "aside": None if aside is None else aside.name,
    }
    text = _told(run, data, skipped, aside)
    run.sinks.event(Event(run.position.step, "action", "rollback", text, interrupts=True, data=data))


def _told(run: Run, data: dict[str, Any], skipped: _Skipped, aside: Path | None) -> str:
    policy, words = run.monitor.config.policy, WORDS[run.monitor.config.language]
    names = ", ".join(data["first_documents"])
    if len(skipped.documents) > NAMED_DOCUMENTS:
        names += ", ..."
    documents = words["documents"].format(count=len(skipped.documents), names=names) if names else ""
    lines = [
        words["done"].format(
            **data,
            number=data["rollbacks"],
            most=policy.max_rollbacks,
            to_window=skipped.stop,
            windows=skipped.stop - skipped.start,
            documents=documents,
        )
    ]
    lowered = run.position.lowered
    if lowered is not None and lowered.since == run.position.step:
        told = {"factor": lowered.factor, "steps": lowered.steps, "rewarm": lowered.rewarm_steps}
        lines.append(words["lowered"].format(**told))
    if aside is not None:
        lines.append(words["aside"].format(aside=aside))
    return "\n".join(lines)


def _stopped(run: Run, action: RollBack, words: str) -> Stop:
    """The run ends here; its state, which the user may want to look at, is saved."""
    most = run.monitor.config.policy.max_rollbacks
    reason = words.format(cause=action.cause, opened_at=action.opened_at, most=most)
    stop = Stop(run.position.step, reason, action.cause)
    run.sinks.event(action_event(stop))
    save(run, "stopping", ends=True)
    return stop
