"""Loss scalers that a run can be given in place of its own."""

from functools import partial

import torch
from torch import Tensor

from minigpt.training.run import Run


class FixedScaler(torch.amp.GradScaler):
    """A static loss scale: an overflow costs the step its update and changes nothing else."""

    def __init__(self, device_type: str, scale: float) -> None:
        super().__init__(device_type, init_scale=scale)
        self._fixed = float(scale)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Forget the step's overflow; the scale stays."""
        super().update(self._fixed)


def scale_by(run: Run, scale: float | None) -> dict[str, float]:
    """Give the run a fixed loss scale, or none at all; for `Arm.before`."""
    kind = run.world.device.type
    run.scaler = torch.amp.GradScaler(kind, enabled=False) if scale is None else FixedScaler(kind, scale)
    return {}


without_scale = partial(scale_by, scale=None)
