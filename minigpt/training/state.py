"""All of a run's state as plain data, and a run put back into it."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from math import isfinite
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from minigpt.checkpoint.files import FORMAT
from minigpt.checkpoint.health import health_mark
from minigpt.checkpoint.rng import capture_rng, restore_rng
from minigpt.errors import CheckpointError, MiniGPTError
from minigpt.optim.schedule import LoweredRate
from minigpt.training.folder import EVENTS_NAME
from minigpt.training.run import Position, Run
from minigpt.training_monitor.signals import StepSignals


def run_state(run: Run) -> dict[str, Any] | None:
    """What a checkpoint holds, on the main rank; None on the others, which only lend their random states."""
    rng = run.world.gather(capture_rng(run.world.device))
    if not run.world.is_main:
        return None
    return {
        # The bare model's names: no `module.`, no `_orig_mod.`.
        "model_state_dict": run.model.state_dict(),
        "optimizer_state_dicts": [optimizer.state_dict() for optimizer in run.optimizers],
        "scaler_state_dict": run.scaler.state_dict(),
        "rng": rng,
        "position": asdict(run.position),
        "monitor": run.monitor.state_dict(),
        "probe": run.probe.state_dict(),
        **health_mark(run.monitor.open_findings, run.monitor.trouble_since),
        "micro_batch_size": run.micro_batch_size,
        "world_size": run.world.size,
        "precision": run.precision.name,
        **run.identity,
    }


def restore_state(run: Run, state: dict[str, Any]) -> list[str]:
    """Put `run` into a checkpoint's state; what was restored, and what could not be exact, one line each.

    Raises:
        CheckpointError: the checkpoint's model or optimizer has another shape than this run's.
    """
    with _as_it_was_saved():
        check_shapes(run.model.state_dict(), state["model_state_dict"])
        if len(state["optimizer_state_dicts"]) != len(run.optimizers):
            raise CheckpointError(
                "the checkpoint was trained with another optimizer.name; resume with the run's own, or start a new run"
            )
        run.model.load_state_dict(state["model_state_dict"])
        for optimizer, saved in zip(run.optimizers, state["optimizer_state_dicts"], strict=True):
            _load_moments(optimizer, saved)
        if run.scaler.is_enabled() and state["scaler_state_dict"]:
            run.scaler.load_state_dict(state["scaler_state_dict"])
        run.position = _position(state["position"])
        run.sinks_state, vouched = state.get("sinks", {}), state.get("records", {}).get(EVENTS_NAME)
        run.events_bytes = None if vouched is None else int(vouched["bytes"])
        run.loader.load_state_dict({"position": run.position.window})
        knows_monitor = state.get("format", FORMAT) == FORMAT
        if knows_monitor:
            run.monitor.load_state_dict(state["monitor"])
            _try_monitor(run)
        if "probe" in state:
            run.probe.load_state_dict(state["probe"])
        if len(state["rng"]) == run.world.size:
            restore_rng(state["rng"][run.world.rank], run.world.device)
    lines = [
        "restored: weights, optimizer, "
        + ("gradient scaler, " if run.scaler.is_enabled() else "")
        + f"random states{', monitor' if knows_monitor else ''}; "
        + f"step {run.position.step}, {run.position.tokens_seen:,} tokens seen, "
        + f"epoch {run.position.window // run.windows_per_epoch}, "
        + f"window {run.position.window % run.windows_per_epoch} of {run.windows_per_epoch}"
    ]
    if not knows_monitor:
        lines.append("the checkpoint is of an older version: the monitor learns anew what is normal")
    if state["precision"] != run.precision.name:
        formats = [name.replace("off", "fp32") for name in (state["precision"], run.precision.name)]
        lines.append(f"not exact: computed in {formats[0]} before, in {formats[1]} now")
    if len(state["rng"]) != run.world.size:
        lines.append(
            f"not exact: {len(state['rng'])} ranks saved it and {run.world.size} resume it; the batches stay the same, "
            "dropout draws anew"
        )
    return lines


@contextmanager
def _as_it_was_saved() -> Iterator[None]:
    """Turns what goes wrong inside into one clear line: the state is not one that a run has saved."""
    try:
        yield
    except MiniGPTError:
        raise
    # A state of another make can fail in any part, in any way.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise CheckpointError(
            f"the checkpoint's state is not one that a run of this version saves ({type(error).__name__}: {reason}); "
            "use an older checkpoint, or start a new run with --run-dir"
        ) from error


def _try_monitor(run: Run) -> None:
    """Shows a copy of the monitor a quiet step and a broken one: what is wrong with it shows now."""
    trial = deepcopy(run.monitor)
    for loss in (1.0, float("nan")):
        step = run.position.step + (1 if isfinite(loss) else 2)
        trial.observe(StepSignals(step, loss, 1.0, lr=run.learning_rate, tokens=1, tokens_per_second=1.0))
    trial.state_dict()


def _position(saved: dict[str, Any]) -> Position:
    """The counters of a checkpoint; those that it does not know yet begin as in a new run."""
    lowered = saved.get("lowered")
    return Position(**{**saved, "lowered": None if lowered is None else LoweredRate(**lowered)})


def _load_moments(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """The saved moments under this run's settings: torch would bring the old weight decay, betas and eps back too."""
    settings = [
        {key: value for key, value in group.items() if key not in ("params", "lr")}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(saved)
    for parameter, moments in optimizer.state.items():
        # torch looks only at their number.
        for name, moment in moments.items():
            if not isinstance(moment, Tensor) or moment.shape not in (parameter.shape, ()):
                raise CheckpointError(f"the checkpoint's optimizer state is not of this model ({name!r:.40})")
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def check_shapes(own: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    """Nothing, when the names and shapes agree.

    Raises:
        CheckpointError: they do not; the first difference is named.
    """
    for name in [*own, *saved]:
        shapes = [tuple(state[name].shape) if name in state else "absent" for state in (saved, own)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"the checkpoint has another model: {name} is {shapes[0]} there and {shapes[1]} here; "
                "resume with the run's own model section, or start a new run with --run-dir"
            )
