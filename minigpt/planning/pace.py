"""How long a step will take here: measured on one and two blocks of the model, for a few seconds."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch

from minigpt.model.count import flops_per_token
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize
from minigpt.optim.build import build_optimizers
from minigpt.optim.config import OptimizerConfig
from minigpt.planning.memory import memory_report
from minigpt.planning.workload import Workload

TRIED_TOKENS = 2048
MOST_FLOPS = {"cpu": 1.5e12, "cuda": 1e14}
"""Of one try: some ten seconds for all of them on a weak machine."""
TRIES = 3
ENOUGH_SECONDS = 3.0
"""After so long one try has to do."""
FASTER, SLOWER = 0.6, 1.25
"""How far a run's steps may be from eager code measured for a moment: compiled code, and a machine that is shared."""


@dataclass(frozen=True)
class Pace:
    """Seconds, eager, on this device."""

    forward_backward_seconds: float
    """Of one token."""
    update_seconds: float
    """Of one update of all weights."""

    def step_seconds(self, tokens_per_rank_step: int) -> float:
        """Of one optimizer step."""
        return self.forward_backward_seconds * tokens_per_rank_step + self.update_seconds


def measured_pace(work: Workload, device: torch.device, available_bytes: int | None) -> Pace | None:
    """The pace of `work` on this device; None where even two blocks are too much to try in a few seconds."""
    sequences = max(1, min(work.micro_batch_size, TRIED_TOKENS // work.model.context_length))
    one, two = (_with_layers(replace(work, micro_batch_size=sequences), layers) for layers in (1, 2))
    flops = flops_per_token(two.model, work.vocab_size) * two.tokens
    if flops > MOST_FLOPS.get(device.type, MOST_FLOPS["cpu"]):
        return None
    if available_bytes is not None and memory_report(two).peak > available_bytes // 2:
        return None
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        first, second = _timed(one, device), _timed(two, device)
    layers = work.model.num_layers
    extrapolated = [
        alone + (layers - 1) * max(0.0, both - alone) for alone, both in zip(first, second, strict=True)
    ]
    return Pace(extrapolated[0] / one.tokens, extrapolated[1])


def _with_layers(work: Workload, layers: int) -> Workload:
    return replace(work, model=work.model.model_copy(update={"num_layers": layers}))


def _timed(work: Workload, device: torch.device) -> tuple[float, float]:
    """Seconds of a forward and backward, and of an update."""
    with torch.device(device):
        model = GPT(work.model, work.vocab_size)
    initialize(model, seed=0)
    model.train()
    model.recompute_blocks = work.recompute
    optimizers = build_optimizers(model, OptimizerConfig(name=work.optimizer))
    ids_BT = torch.randint(work.vocab_size, (work.micro_batch_size, work.model.context_length), device=device)
    computing: list[float] = []
    updating: list[float] = []
    started_at = _now(device)
    while len(computing) <= TRIES and (not computing or _now(device) - started_at < ENOUGH_SECONDS):
        began = _now(device)
        with _autocast(work):
            loss = model(ids_BT, ids_BT).total
        loss.backward()
        computing.append(_now(device) - began)
        began = _now(device)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        updating.append(_now(device) - began)
    # The best of them: the first warms up, and what disturbs only adds.
    return min(computing), min(updating)


def _autocast(work: Workload) -> AbstractContextManager[None]:
    if work.precision == "off":
        return nullcontext()
    dtype = torch.bfloat16 if work.precision == "bf16" else torch.float16
    return torch.autocast(work.device_type, dtype=dtype)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
