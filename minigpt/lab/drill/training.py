"""One tiny training, written as a user would write it, with the monitor in it and a scenario done to it."""

# B batch, T time, V vocabulary

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from minigpt.lab.drill.language import language
from minigpt.lab.drill.scenario import Scenario
from minigpt.lab.drill.watch import Watch
from minigpt.model.block import Block
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
TEST_WINDOWS = 64
"""Held-out windows that tell what a fault has cost."""


class Training:
    """The training of `scenario` from `seed`; `run` trains, then `final_loss` is known."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario, self.seed = scenario, seed
        self.setting = setting = scenario.setting
        self.step = 0
        self.language = language(setting.language_seed, setting.vocab_size, setting.noise)
        self.context_length = setting.model.context_length
        self.data_chance = np.random.default_rng((seed, 2))
        self.chance = torch.Generator().manual_seed(seed + 1000)
        """For faults: what they draw must not move the data."""
        self.notes: dict[Any, Any] = {}
        """What a scenario remembers between steps."""
        self.model = GPT(setting.model, setting.vocab_size)
        initialize(self.model, seed)
        if setting.precision == "pure bf16":
            self.model.to(torch.bfloat16)
        scenario.before_build(self)
        self.optimizers = setting.build_optimizers(self.model)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=setting.initial_scale, growth_interval=200)
        if setting.precision != "fp16":
            self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.watch = Watch(self)
        scenario.built(self)

    def run(self) -> None:
        """Trains all steps; afterwards `watch` has the record."""
        while self.step < self.setting.steps:
            self.step += 1
            self.train_step()
        self.watch.close()

    def train_step(self) -> None:
        """One optimizer step, from the batch to the cleared gradients."""
        scenario, setting = self.scenario, self.setting
        scenario.before_step(self)
        lr = scenario.actual_lr(self, self.planned_lr(self.step))
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = lr * group.get("lr_ratio", 1.0)
        reported = 0.0
        for _ in range(setting.accumulation):
            inputs_BT, targets_BT = scenario.batch(self, *self.tokens())
            loss = scenario.loss(self, self.mean_loss(inputs_BT, targets_BT))
            reported += float(loss.detach()) / setting.accumulation
            objective = scenario.objective(self, loss / setting.accumulation)
            self.scaler.scale(objective).backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers if self.scaler.is_enabled() else ():
            self.scaler.unscale_(optimizer)
        scenario.after_backward(self)
        self.watch.step(torch.tensor(reported), inputs_BT, targets_BT)
        grad_norm = clip_grad_norm_(self.model.parameters(), setting.max_grad_norm)
        self.update(bool(torch.isfinite(grad_norm)) and math.isfinite(reported))
        if scenario.zero_grad(self):
            self.model.zero_grad()

    def update(self, finite: bool) -> None:
        """Steps the optimizers; a user's own guard keeps NaN and infinity from the weights."""
        called = self.scenario.update(self)
        for optimizer in self.optimizers if called else ():
            if self.scaler.is_enabled():
                self.scaler.step(optimizer)
            elif finite:
                optimizer.step()
        if self.scaler.is_enabled():
            self.update_scale()
        self.scenario.after_update(self)

    def update_scale(self) -> None:
        self.scaler.update()

    def planned_lr(self, step: int) -> float:
        """Learning rate that the user wants at `step`, counted from 1."""
        return self.scenario.planned_lr(self, self.setting.planned_lr(step))

    def tokens(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the next micro-batch, (B, T) each."""
        windows = self.language.windows(self.data_chance, self.setting.batch_size, self.context_length)
        both = torch.from_numpy(windows)
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    def mean_loss(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross-entropy in nats a token."""
        dtype = AUTOCAST.get(self.setting.precision)
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            logits_BTV = self.model(inputs_BT)
        logits = logits_BTV.float().flatten(0, 1)
        loss = F.cross_entropy(logits, targets_BT.flatten(), label_smoothing=self.setting.label_smoothing)
        if self.setting.model.z_loss_weight:
            loss = loss + self.setting.model.z_loss_weight * logits.logsumexp(dim=-1).square().mean()
        return loss

    def block(self, index: int) -> Block:
        """One of the model's blocks."""
        block = self.model.blocks[index]
        assert isinstance(block, Block)
        return block

    def gradients(self, prefixes: Sequence[str] = ("",)) -> list[Tensor]:
        """The gradients there are of the parameters whose name starts with one of the prefixes."""
        return [
            parameter.grad
            for name, parameter in self.model.named_parameters()
            if name.startswith(tuple(prefixes)) and parameter.grad is not None
        ]

    def pause(self, seconds: float) -> None:
        """Something else takes the machine's time."""
        time.sleep(seconds)

    def test_loss(self) -> float:
        """Loss of the weights, in a model of their own: what a fault has done to the code is left behind."""
        model = GPT(self.setting.model, self.setting.vocab_size)
        initialize(model, self.seed)
        model.load_state_dict(self.model.state_dict())
        return self.evaluate(model)

    @torch.no_grad()
    def evaluate(self, model: GPT) -> float:
        """Loss on texts that no training has seen, of the setting's own language and context."""
        setting = self.setting
        home = language(setting.language_seed, setting.vocab_size, setting.noise)
        windows = home.windows(np.random.default_rng(2**31), TEST_WINDOWS, setting.model.context_length)
        both = torch.from_numpy(windows)
        model.eval()
        logits_BTV = model(both[:, :-1]).float()
        model.train()
        return float(F.cross_entropy(logits_BTV.flatten(0, 1), both[:, 1:].flatten()))
