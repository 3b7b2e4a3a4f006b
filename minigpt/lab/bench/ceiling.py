"""How fast this machine multiplies matrices: the ceiling that a share of is reported."""

import time

import torch
from torch.nn import functional as F

from minigpt.distributed.device import peak_flops
from minigpt.lab.bench.gate import Facts, Gate
from minigpt.lab.bench.shapes import Terms

# Rows, inner, columns: a square, and what a wide layer asks for. A GPU needs larger ones to be busy.
CPU_SIZES = ((2048, 2048, 2048), (4096, 1024, 4096), (4096, 4096, 1024))
GPU_SIZES = ((4096, 4096, 4096), (8192, 8192, 8192), (16384, 4096, 4096))
SECONDS_A_SIZE = 0.25


def measure_ceiling(terms: Terms, gate: Gate) -> None:
    """At each step of the gate, the best FLOP/s of any of these sizes in the contenders' arithmetic."""
    device = torch.device(terms.device)
    dtype = torch.bfloat16 if terms.precision == "bf16" else torch.float32
    pairs = [
        (torch.randn(m, k, device=device).to(dtype), torch.randn(n, k, device=device).to(dtype))
        for m, k, n in (CPU_SIZES if device.type == "cpu" else GPU_SIZES)
    ]
    gate.built(Facts(parameters=0, flops_per_token=0, vocab_size=1, peak_flops=peak_flops(device, dtype)))
    while True:
        gate.next_step()
        gate.record(max(_flops(x, w) for x, w in pairs))


def _flops(x: torch.Tensor, w: torch.Tensor) -> float:
    """Floating-point operations a second of `x @ w.T`: the quickest of several batches of calls."""
    work = 2.0 * x.shape[0] * x.shape[1] * w.shape[0]
    # The first also warms up, and tells how many fill a quarter of the time.
    first = _seconds(x, w, 1)
    calls = max(1, round(SECONDS_A_SIZE / 4 / first))
    tries = max(1, min(4, round(SECONDS_A_SIZE / (calls * first))))
    return max(work * calls / _seconds(x, w, calls) for _ in range(tries))


def _seconds(x: torch.Tensor, w: torch.Tensor, calls: int) -> float:
    _wait_for(x.device)
    began_at = time.perf_counter()
    for _ in range(calls):
        F.linear(x, w)
    _wait_for(x.device)
    return time.perf_counter() - began_at


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
