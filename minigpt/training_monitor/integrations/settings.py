"""What the callbacks for other libraries' Trainers are told, alike in all of them."""

from collections.abc import Sequence
from pathlib import Path

from minigpt.training_monitor.action import Action, Continue
from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.sinks.protocol import Sink


class MonitorSettings:
    """`sinks` take the place of the console and of the `folder`. `stop`: whether the monitor may end the training when
    its policy says so; its other actions are told, not done.
    """

    def __init__(
        self,
        config: MonitorConfig | None = None,
        *,
        folder: str | Path | None = None,
        sinks: Sequence[Sink] | None = None,
        stop: bool = True,
    ) -> None:
        self.loop: LoopMonitor | None = None
        """What watches the training that is under way."""
        self._config = config
        self._folder = folder
        self._sinks = sinks
        self._may_stop = stop
        self._begin()

    def _begin(self) -> None:
        """Nothing of the next step has been seen."""
        self._action: Action = Continue()
