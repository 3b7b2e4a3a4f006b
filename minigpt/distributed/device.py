"""Which device a run uses, and how fast it could be."""

import re

import torch

from minigpt.errors import ConfigError, DeviceError

# Dense peak of the tensor cores in TFLOP/s for 16-bit inputs (vendors' data sheets, without sparsity).
PEAK_TFLOPS_16BIT = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10": 125.0,
    "4090": 165.0,
    "3090": 71.0,
    "V100": 125.0,
    "T4": 65.0,
}


def resolve_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called `name`; auto: cuda > mps > cpu. `cuda` is the rank's own card.

    Raises:
        ConfigError: the device is not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("training.device = mps, but this machine has no Metal GPU; use auto or cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,4})?", name):
        raise ConfigError(f"device = {name}: there is no such device; use auto, cpu, cuda, cuda:N or mps")
    if not name.startswith("cuda"):
        return torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(name.partition(":")[2] or local_rank)
    if index >= count:
        raise DeviceError(
            f"training.device = {name} wants CUDA device {index}, but torch {torch.__version__} sees {count} here; "
            "use auto or cpu, or a torch build for your GPU"
        )
    return torch.device("cuda", index)


def device_title(device: torch.device) -> str:
    """The device in words for people: a GPU's name, or the CPU's threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    return f"CPU, {torch.get_num_threads()} threads"


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Floating-point operations a second that MFU is measured against: a known GPU's data sheet for 16-bit types.

    None elsewhere: a CPU's or an unknown card's ceiling would be a guess, and measured on a shared machine it differs
    tenfold from one minute to the next.
    """
    if device.type != "cuda" or dtype == torch.float32:
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak * 1e12 for key, peak in PEAK_TFLOPS_16BIT.items() if key in name), None)
