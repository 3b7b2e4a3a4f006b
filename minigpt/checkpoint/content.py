"""What makes a file's content a checkpoint of this run folder: checked wherever one is read."""

from pathlib import Path
from typing import Any

from minigpt.checkpoint.damage import DamagedError
from minigpt.checkpoint.digest import glance_at_sealed
from minigpt.checkpoint.files import FORMAT, checkpoint_step
from minigpt.checkpoint.plausible import implausible
from minigpt.errors import CheckpointError


def check_content(path: Path, state: Any) -> None:
    """Nothing, when `state`, read from `path`, is a checkpoint that this MiniGPT can read, of the step in its name.

    Raises:
        DamagedError: it is something else, or another step's.
        CheckpointError: a newer MiniGPT wrote it.
    """
    if (
        not isinstance(state, dict)
        or not isinstance(state.get("model_state_dict"), dict)
        or not isinstance(state.get("step"), int)
    ):
        raise DamagedError(path, "it is not a MiniGPT checkpoint: it has no model_state_dict and step")
    if type(state.get("format")) is not int or state["format"] not in range(1, FORMAT + 1):
        raise CheckpointError(
            f"{path} has checkpoint format {str(state.get('format'))[:20]}, this MiniGPT reads 1 to {FORMAT}; "
            "use the version that wrote it"
        )
    if (wrong := implausible(state)) is not None:
        raise DamagedError(path, f"it is not a MiniGPT checkpoint: {wrong}")
    named = checkpoint_step(path)
    if named is not None and state["step"] != named:
        raise DamagedError(path, f"it holds step {state['step']}, not {named}")


def glance_at_checkpoint(path: Path, *, again: bool = False) -> dict[str, Any]:
    """The content of a whole checkpoint, its tensors left on the disk: milliseconds, once its bytes were checked.

    A file that has not changed since this process checked it is not read again, but with `again`.

    Raises:
        CheckpointError: as `load_checkpoint`.
    """
    state = glance_at_sealed(path, again=again)
    check_content(path, state)
    found: dict[str, Any] = state
    return found


def is_good(path: Path) -> bool:
    """Whether a run could go on from this file."""
    try:
        glance_at_checkpoint(path)
    except CheckpointError:
        return False
    return True
