"""How much memory this process could still take on a device."""

import os
import subprocess
from pathlib import Path

import torch

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_MAC_SHARE = 0.75
"""Of the physical memory of a system that does not say what is free."""


def available_bytes(device: torch.device) -> int | None:
    """Bytes this process could still allocate on `device`; None where the system does not tell.

    On a CPU what the kernel could hand out without swapping, within the limits of the cgroups (containers,
    batch jobs) and of the process (ulimit -v).
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch's allocator holds unused is ours as well.
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.current_allocated_memory())
    limits = (_system_available(), cgroup_available(_CGROUP_ROOT, _own_cgroups()), _address_space_left())
    return min((limit for limit in limits if limit is not None), default=None)


def _system_available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    total = _physical_bytes()
    return None if total is None else int(total * _MAC_SHARE)


def _address_space_left() -> int | None:
    """Below the process's own limit; None without one."""
    try:
        import resource  # not on Windows

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return None if limit == resource.RLIM_INFINITY else max(0, limit - pages * resource.getpagesize())
    except (ImportError, OSError):
        return None


def _physical_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        pass
    try:
        return int(subprocess.run(["sysctl", "-n", "hw.memsize"], capture_output=True, check=True).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def _own_cgroups() -> str:
    try:
        return Path("/proc/self/cgroup").read_text()
    except OSError:
        return ""


def cgroup_available(root: Path, own_cgroups: str) -> int | None:
    """Bytes left below the tightest memory limit of this process's cgroups (v1 or v2); None without a limit.

    `own_cgroups` is the text of /proc/self/cgroup. In a container the path there may lie outside of what is
    mounted at `root`: then the root itself holds the limit.
    """
    left: list[int] = []
    for line in own_cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = mount / path.strip("/")
        for level in [folder, *folder.parents]:
            found = _left_below_limit(level, *names)
            if found is not None:
                left.append(found)
            if level == mount:
                break
    return min(left, default=None)


def _left_below_limit(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> int | None:
    try:
        limit = int((folder / limit_name).read_text())
        usage = int((folder / usage_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    # "max" is no number: no limit at this level.
    except (OSError, ValueError):
        return None
    # Cached file pages count as used and are given up when needed. Cgroup v1 writes "no limit" as a huge
    # number.
    return max(0, limit - usage + int(stat.get(cache_name, 0))) if limit < 1 << 60 else None
