"""How fast this machine multiplies matrices: the ceiling that a share of is reported."""

import time

import torch
from torch.nn import functional as F

from minigpt.lab.bench.gate import Facts, Gate
from minigpt.lab.bench.shapes import Terms

SIZES = ((4096, 4096, 4096), (2048, 2048, 2048), (4096, 1024, 4096), (4096, 4096, 1024))
"""Rows, inner, columns: squares, and what a wide layer asks for. The best of them is the ceiling."""
SECONDS_A_SIZE = 0.2


def measure_ceiling(terms: Terms, gate: Gate) -> None:
    """At each step of the gate, the best FLOP/s of any of SIZES in the contenders' arithmetic."""
    device = torch.device(terms.device)
    dtype = torch.bfloat16 if terms.precision == "bf16" else torch.float32
    pairs = [
        (torch.randn(m, k, device=device).to(dtype), torch.randn(n, k, device=device).to(dtype))
        for m, k, n in SIZES
    ]
    gate.built(Facts(parameters=0, flops_per_token=0, vocab_size=1))
    while True:
        gate.next_step()
        gate.record(max(_flops(x, w) for x, w in pairs))


def _flops(x: torch.Tensor, w: torch.Tensor) -> float:
    """Floating-point operations a second of `x @ w.T`: the quickest of several batches of calls."""
    work = 2.0 * x.shape[0] * x.shape[1] * w.shape[0]
    F.linear(x, w)
    calls = max(1, round(SECONDS_A_SIZE / 4 / _seconds(x, w, 1)))
    return max(work * calls / _seconds(x, w, calls) for _ in range(4))


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
