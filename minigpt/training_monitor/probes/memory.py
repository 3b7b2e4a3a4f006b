"""Memory held by this process at most, so far."""

import sys

import torch


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most memory held: on the GPU, or by this process (None on Windows, which does not tell)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
