"""Number formats of a run: what autocast computes in, and whether losses need scaling."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from minigpt.errors import ConfigError
from minigpt.optim.orthogonal import cpu_multiplies_bf16


@dataclass(frozen=True)
class Precision:
    """The resolved `mixed_precision` of a run on one device."""

    name: str
    """bf16 | fp16 | off."""
    dtype: torch.dtype
    """What matrix products compute in; the weights stay fp32."""
    device_type: str

    def autocast(self) -> AbstractContextManager[None]:
        """The context that forward passes run in."""
        if self.name == "off":
            return nullcontext()
        # The cache holds casted weights until the context ends: right for a forward, and it must not outlive an update.
        return torch.autocast(self.device_type, dtype=self.dtype)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """A loss scaler: real for fp16, whose range is 6e-8 to 65504; the other formats pass through it."""
        return torch.amp.GradScaler(self.device_type, enabled=self.name == "fp16")


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}


def resolve_precision(wanted: str, device: torch.device) -> Precision:
    """The number format for `training.mixed_precision` on `device`.

    Raises:
        ConfigError: the device cannot compute in the format asked for.
    """
    name = _automatic(device) if wanted == "auto" else wanted
    if name == "fp16" and device.type == "mps":
        raise ConfigError(
            "training.mixed_precision = fp16 does not work on mps (no GradScaler); use bf16 or off"
        )
    return Precision(name, DTYPES[name], device.type)


def _automatic(device: torch.device) -> str:
    if device.type == "cuda":
        # Cards before Ampere emulate bf16 slowly; their tensor cores speak fp16.
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if device.type == "cpu":
        return "bf16" if cpu_multiplies_bf16() else "off"
    return "off"
