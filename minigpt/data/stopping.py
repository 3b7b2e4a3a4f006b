"""How a long preparation is asked to stop."""

from collections.abc import Callable

from minigpt.errors import MiniGPTError

ShouldStop = Callable[[], bool]


class PreparationStopped(MiniGPTError):
    """The preparation was asked to stop; nothing half-made was left behind."""

    def __init__(self) -> None:
        super().__init__(
            "preparation of the corpus stopped on request; nothing was kept, the next run starts it anew"
        )


def never() -> bool:
    """Nobody asks to stop."""
    return False


def stop_if_asked(should_stop: ShouldStop) -> None:
    """Raises PreparationStopped once `should_stop` says so."""
    if should_stop():
        raise PreparationStopped
