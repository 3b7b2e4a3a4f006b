"""Which device a run uses, and how fast it could be."""

import time

import torch

from minigpt.errors import ConfigError

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
    if not name.startswith("cuda"):
        return torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(name.partition(":")[2] or local_rank)
    if index >= count:
        raise ConfigError(
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
    """Floating-point operations a second that MFU is measured against; None where unknown.

    A known GPU's data sheet for 16-bit types; on a CPU the matrix product measured here and now, since no data
    sheet knows how many of its cores are ours.
    """
    if device.type == "cuda" and dtype != torch.float32:
        name = torch.cuda.get_device_name(device)
        return next((peak * 1e12 for key, peak in PEAK_TFLOPS_16BIT.items() if key in name), None)
    return _measured_matmul_flops(dtype) if device.type == "cpu" else None


def _measured_matmul_flops(dtype: torch.dtype) -> float:
    """The best of a few square products: about 0.1 s of work."""
    size, best = 1024, float("inf")
    # Zeros: no draw from anybody's random generator.
    left, right = torch.zeros(size, size, dtype=dtype), torch.zeros(size, size, dtype=dtype)
    for _ in range(6):
        started_at = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started_at)
    return 2 * size**3 / best
