"""What a detector is."""

from typing import Any, Protocol

from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.signals import StepSignals


class Detector(Protocol):
    """Watches one kind of trouble; its state is plain values, so that resume is exact."""

    def observe(self, signals: StepSignals) -> list[Finding]:
        """The findings of this step: only turning points, so nearly always none."""
        ...

    def rebase(self) -> None:
        """Forgets what it took for the run's lasting normal: the user declared a change of data, rate or model."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
