"""nanoGPT's recipe, trained to its end: a process of its own. `python -m minigpt.lab.time_to_loss.peer ORDER`."""

# B batch, T time

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.config.load import load_config
from minigpt.config.run_config import RunConfig
from minigpt.data.loader import BatchLoader, validation_batches
from minigpt.data.prepare import Prepared, prepare
from minigpt.data.windows import Windows
from minigpt.evaluation.loss import evaluate
from minigpt.lab.bench.peers.nanogpt import NanoGPT
from minigpt.lab.bench.shapes import Shape
from minigpt.lab.time_to_loss.curve import Curve
from minigpt.model.count import padded_vocab_size
from minigpt.model.loss import IGNORE_INDEX, LossSums
from minigpt.optim.schedule import lr_at
from minigpt.training.precision import resolve_precision

CLIP = 1.0


@dataclass
class PeerRun:
    """The peer on MiniGPT's data: `config` says which, how long, and AdamW's settings; its model section the size."""

    config: RunConfig
    prepared: Prepared
    model: NanoGPT
    optimizer: torch.optim.Optimizer
    device: torch.device

    def train(self, recipe: str) -> Curve:
        """All steps, an evaluation every `eval_every_steps` and at the end."""
        training = self.config.training
        forward: Callable[[Tensor, Tensor], Tensor]
        forward = torch.compile(self.model) if training.compile == "on" else self.model
        seconds: list[float] = []
        losses: list[tuple[int, float]] = []
        with self._loader() as loader:
            if training.compile == "on":
                zeros_BT = torch.zeros(
                    self._micro_batch_size, self.config.model.context_length, dtype=torch.long
                )
                self._backward(forward, zeros_BT, zeros_BT)
                self.model.zero_grad(set_to_none=True)
            for step in range(training.max_steps):
                started_at = time.perf_counter()
                self._step(forward, step, loader)
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - started_at)
                if (step + 1) % training.eval_every_steps == 0 or step + 1 == training.max_steps:
                    losses.append((step + 1, self.validation_loss()))
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return Curve(recipe, training.seed, training.max_steps, parameters, tuple(seconds), tuple(losses))

    def validation_loss(self) -> float:
        """On the windows that MiniGPT's own evaluation reads."""
        training, windows = self.config.training, self._windows(self.prepared.validation)
        manifest = self.prepared.manifest.validation
        done = evaluate(
            Summed(self.model),
            validation_batches(windows, self._micro_batch_size, training.eval_tokens),
            bytes_per_token=manifest.bytes / manifest.tokens,
            autocast=resolve_precision(training.mixed_precision, self.device).autocast,
            device=self.device,
            reduce_sum=lambda totals: totals,
            should_stop=lambda: False,
        )
        assert done is not None
        return done.loss

    def _step(self, forward: Callable[[Tensor, Tensor], Tensor], step: int, loader: BatchLoader) -> None:
        config = self.config
        lr = lr_at(step, config.schedule, config.optimizer.learning_rate, config.training.max_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        batches = loader.next_step().micro_batches
        for batch in batches:
            self._backward(forward, batch.inputs_BT, batch.targets_BT, 1 / len(batches))
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _backward(
        self,
        forward: Callable[[Tensor, Tensor], Tensor],
        inputs_BT: Tensor,
        targets_BT: Tensor,
        share: float = 1.0,
    ) -> None:
        with resolve_precision(self.config.training.mixed_precision, self.device).autocast():
            loss: Tensor = forward(
                inputs_BT.to(self.device, non_blocking=True), targets_BT.to(self.device, non_blocking=True)
            )
        torch.autograd.backward(loss * share)

    @property
    def _micro_batch_size(self) -> int:
        size = self.config.training.micro_batch_size
        assert size != "auto"
        return size

    def _windows(self, tokens: Any) -> Windows:
        return Windows(tokens, self.config.model.context_length)

    def _loader(self) -> BatchLoader:
        training, context = self.config.training, self.config.model.context_length
        return BatchLoader(
            self._windows(self.prepared.train),
            seed=self.config.data.seed,
            micro_batch_size=self._micro_batch_size,
            grad_accum_steps=training.tokens_per_step // (self._micro_batch_size * context),
            pin_memory=self.device.type == "cuda",
        )


class Summed(nn.Module):
    """The peer's mean loss as the sums that MiniGPT's evaluation adds up."""

    def __init__(self, model: NanoGPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> LossSums:
        total = self.model(inputs_BT, targets_BT).float() * (targets_BT != IGNORE_INDEX).sum()
        return LossSums(total, total)


def build_peer(config: RunConfig) -> PeerRun:
    """The peer at its first step, on the corpus of `config`."""
    prepared = prepare(config.data, progress=False)
    shape = config.model
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.training.seed)
    model = NanoGPT(
        Shape(
            "peer",
            shape.num_layers,
            shape.hidden_size,
            shape.num_heads,
            shape.context_length,
            prepared.manifest.vocab_size,
            1,
            1,
            "small",
        ),
        padded_vocab_size(prepared.manifest.vocab_size),
    ).to(device)
    decayed = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    rest = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups,
        lr=config.optimizer.learning_rate,
        betas=config.optimizer.betas,
        weight_decay=config.optimizer.weight_decay,
        fused=True,
    )
    return PeerRun(config, prepared, model, optimizer, device)


def main(order: dict[str, Any]) -> None:
    """Train by `order`: `config`, `overrides`, `recipe`, and `curve`, the file to write."""
    config = load_config(order["config"], order["overrides"]).config
    build_peer(config).train(order["recipe"]).save(Path(order["curve"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
