"""The most memory that a process has held."""

import re
from pathlib import Path

import torch

from minigpt.training_monitor.probes.memory import peak_memory_bytes


def peak_bytes(device: torch.device) -> int | None:
    """Peak on the GPU, or of this process's resident memory; None where the system does not tell.

    On Linux from VmHWM: getrusage's figure outlives exec, so a child would begin with its parent's peak.
    """
    status = Path("/proc/self/status")
    if device.type == "cpu" and status.exists():
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="ascii", errors="replace"))
        if found:
            return 1024 * int(found[1])
    return peak_memory_bytes(device)
