"""Memory held by this process at most, so far."""

import sys

import torch


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most memory held: on the GPU, or by this process (None on Windows, which does not tell)."""
    if device.type == "cuda":
        # What max_memory_allocated reads, without flattening and sorting a hundred other numbers at every step.
        statistics = torch.cuda.memory.memory_stats_as_nested_dict(device)
        peak: int = statistics.get("allocated_bytes", {}).get("all", {}).get("peak", 0)
        return peak
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
