"""What the last bits of a result depend on besides the configuration: versions, machine, switches."""

import os
import platform
import re
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

import minigpt

UNSET = "unset"
ROUNDING_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DYNAMIC",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_DYNAMIC",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCHINDUCTOR_MAX_AUTOTUNE",
    "TORCHINDUCTOR_CPP_WRAPPER",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Variables by which users and clusters choose other kernels."""
HARMLESS = frozenset(("python", "numpy", "system", "tokenizers", "interop_threads", "driver"))
"""Keys whose change leaves the bits as they are: the arithmetic is torch's, the tokens are prepared, and numpy's
part, the order of the windows, is made of integers."""


def environment(device: torch.device | None = None) -> dict[str, str]:
    """What the last bits of a result depend on besides the configuration; with `device`, also its GPU.

    Plain text by name, so that a checkpoint can carry it and a later version compare what both know.
    """
    return {
        "minigpt": minigpt.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "tokenizers": _version("tokenizers"),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "interop_threads": str(torch.get_num_interop_threads()),
        "mkldnn": _switch(torch.backends.mkldnn.enabled),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": _switch(torch.are_deterministic_algorithms_enabled()),
        "c++": _compiler(),
        **{name: os.environ.get(name, UNSET) for name in ROUNDING_VARIABLES},
        **(_gpu(device) if device is not None and device.type == "cuda" else {}),
    }


def environment_differences(then: dict[str, str], now: dict[str, str], *, compiled: bool = True) -> list[str]:
    """What changed from `then` to `now`, one line each, what may change bits first.

    What only one of them knows is passed over: versions of MiniGPT record more or less. `compiled` tells whether the
    run uses code that this machine's own compiler made.
    """
    changed = [name for name in then if name in now and then[name] != now[name]]
    harmless = HARMLESS if compiled else HARMLESS | {"c++"}
    lines = [
        f"{name} {then[name]} -> {now[name]}: results may round differently"
        for name in changed
        if name not in harmless
    ]
    return lines + [f"{name} {then[name]} -> {now[name]}: harmless" for name in changed if name in harmless]


def _gpu(device: torch.device) -> dict[str, str]:
    properties = torch.cuda.get_device_properties(device)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "gpu_processors": str(properties.multi_processor_count),
        "cuda": str(torch.version.cuda or torch.version.hip or "none"),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        "driver": _driver(),
        "tf32": _switch(matmul.allow_tf32),
        "cudnn_tf32": _switch(cudnn.allow_tf32),
        "cudnn_benchmark": _switch(cudnn.benchmark),
        "cudnn_deterministic": _switch(cudnn.deterministic),
        "bf16_reduced_sums": str(matmul.allow_bf16_reduced_precision_reduction),
        "fp16_reduced_sums": str(matmul.allow_fp16_reduced_precision_reduction),
    }


def _switch(on: object) -> str:
    return "on" if on else "off"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@cache
def _commit() -> str:
    """Of the checkout that this code runs from, with a + where files differ from it; none outside of one."""
    root = Path(minigpt.__file__).parents[1]
    if not (root / ".git").exists():
        return "none"
    commit = _first_line("git", "-C", str(root), "rev-parse", "--short=12", "HEAD")
    changed = _first_line(
        "git",
        "--no-optional-locks",
        "-C",
        str(root),
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        "minigpt",
    )
    return (commit or "none") + ("+" if commit and changed else "")


@cache
def cpu_model() -> str:
    """As the system calls it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        return platform.processor() or "unknown"
    found = [
        re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE) for name in ("model name", "model", "stepping")
    ]
    title, model, stepping = (match[1].strip() if match else "?" for match in found)
    return f"{title} (model {model}, stepping {stepping})"


@cache
def _compiler() -> str:
    """The C++ compiler that torch.compile would use on a CPU, and its version."""
    name = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), None)
    return (name and _first_line(name, "--version")) or "none"


@cache
def _driver() -> str:
    return _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "unknown"


def _first_line(*command: str) -> str:
    """What a small program prints first; empty where it is not there or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout.strip().splitlines() or [""])[0]
