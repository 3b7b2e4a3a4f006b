"""A look at a forward that somebody else makes."""

from typing import Any

from torch import nn

from minigpt.training_monitor.forward_look import ForwardWatch, MeasuredLook
from minigpt.training_monitor.untouched import is_compiled


def arm(model: nn.Module) -> "ArmedLook | None":
    """Watches the forward that is just beginning; None where the model is compiled (hooks would compile it anew).

    For a forward pre-hook of `model` itself: the watch begins at once and ends with this forward.
    """
    return None if is_compiled(model) else ArmedLook(model)


class ArmedLook:
    """A look at the user's own forward, as it happens; the forward is not changed."""

    def __init__(self, model: nn.Module) -> None:
        self._watch: ForwardWatch | None = ForwardWatch(model)
        self._done: MeasuredLook | None = None
        self._watch.__enter__()
        self._handle = model.register_forward_hook(self._finish, always_call=True)

    def _finish(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        self._handle.remove()
        # Let go of here: it holds the logits, which may be a good part of the memory that the backward needs.
        watch, self._watch = self._watch, None
        if watch is None:
            return
        watch.__exit__(None, None, None)
        watch.note_output(output)
        self._done = watch.measured()

    def take(self) -> MeasuredLook | None:
        """What was seen; None while the forward has not ended."""
        return self._done
