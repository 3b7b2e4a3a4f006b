"""The training loop that the peers' recipes have in common: autocast, clip, fused AdamW."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from minigpt.data.loader import Batch, BatchLoader
from minigpt.data.prepare import prepare
from minigpt.data.windows import Windows
from minigpt.lab.bench.gate import Facts, Gate
from minigpt.lab.bench.settings import data_config
from minigpt.lab.bench.shapes import Terms
from minigpt.model.count import padded_vocab_size

# B batch, T time
LossOf = Callable[[Tensor, Tensor], Tensor]
"""Mean loss in nats of inputs_BT and targets_BT."""


def autocast(terms: Terms) -> AbstractContextManager[None]:
    """The context that forward passes run in."""
    if terms.precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(terms.device).type, dtype=torch.bfloat16)


def steps_of(terms: Terms) -> tuple[Iterator[list[Batch]], int]:
    """The very micro-batches that MiniGPT trains on, a step after the other; and the vocabulary for the model."""
    config = data_config(terms)
    prepared = prepare(config, progress=False)
    loader = BatchLoader(
        Windows(prepared.train, terms.shape.context_length),
        seed=config.seed,
        micro_batch_size=terms.shape.micro_batch_size,
        grad_accum_steps=terms.shape.grad_accum_steps,
        pin_memory=terms.device.startswith("cuda"),
    )

    def steps() -> Iterator[list[Batch]]:
        with loader:
            while True:
                yield loader.next_step().micro_batches

    return steps(), padded_vocab_size(prepared.manifest.vocab_size)


def facts_of(model: nn.Module, terms: Terms, vocab_size: int, note: str = "") -> Facts:
    """What the model is; its FLOPs by MiniGPT's formula, from the matrices that it really has."""
    shape = terms.shape
    matrices = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    attention = 6 * shape.num_layers * shape.hidden_size * shape.context_length
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Facts(parameters, 6 * matrices + attention, vocab_size, note)


def train_plainly(
    model: nn.Module, loss_of: LossOf, steps: Iterator[list[Batch]], terms: Terms, gate: Gate
) -> None:
    """Train until the gate closes: what nanoGPT's train.py does between two logged steps."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    rest = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": terms.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=terms.learning_rate,
        betas=terms.betas,
        fused=True,
    )
    device, step = torch.device(terms.device), 0
    while True:
        gate.next_step()
        for group in optimizer.param_groups:
            group["lr"] = terms.lr_at(step)
        losses = []
        for batch in next(steps):
            inputs_BT = batch.inputs_BT.to(device, non_blocking=True)
            loss = loss_of(inputs_BT, batch.targets_BT.to(device, non_blocking=True))
            torch.autograd.backward(loss / terms.shape.grad_accum_steps)
            losses.append(loss.detach())
        nn.utils.clip_grad_norm_(model.parameters(), terms.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        gate.record(torch.stack(losses).mean())
        step += 1
