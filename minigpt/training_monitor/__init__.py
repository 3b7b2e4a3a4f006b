"""Tells whether a training run is healthy, in any PyTorch loop. Needs torch alone; one sink adds tensorboard.

monitor = TrainingMonitor.for_model(model, optimizer)
...
loss.backward()
monitor.step(loss)      # between backward and optimizer.step
optimizer.step()
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minigpt.training_monitor.action import SkipUpdate, Stop
    from minigpt.training_monitor.config import MonitorConfig
    from minigpt.training_monitor.facade import LoopMonitor
    from minigpt.training_monitor.grad_flow import check_grad_flow
    from minigpt.training_monitor.monitor import TrainingMonitor
    from minigpt.training_monitor.signals import StepSignals

__all__ = [
    "LoopMonitor",
    "MonitorConfig",
    "SkipUpdate",
    "StepSignals",
    "Stop",
    "TrainingMonitor",
    "check_grad_flow",
]

_HOMES = {
    "LoopMonitor": "facade",
    "MonitorConfig": "config",
    "SkipUpdate": "action",
    "StepSignals": "signals",
    "Stop": "action",
    "TrainingMonitor": "monitor",
    "check_grad_flow": "grad_flow",
}


def __getattr__(name: str) -> object:
    """The public names, imported on first use: reading the configuration must not cost an import of torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found
