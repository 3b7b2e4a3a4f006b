"""The monitor in Hugging Face's Trainer: `Trainer(..., callbacks=[MonitorCallback()])`."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from minigpt.training_monitor.action import Stop
from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.integrations.agreement import Agreement, mean_over_ranks
from minigpt.training_monitor.integrations.settings import MonitorSettings

STATE_NAME = "training_monitor.json"
SHARDED = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "TP", "XLA")


class MonitorCallback(MonitorSettings, TrainerCallback):
    """Watches every optimizer step of a Trainer, prints what deserves attention, and changes nothing in it.

    Trainer clips before any of its callbacks is called, and only it knows the loss that it trains on. So, for the
    length of `train()`, this callback stands around the Trainer's own `training_step`: what that returns for the
    micro-batches of a step adds up to the step's loss, and when the last one returns, the gradients are complete,
    reduced over the ranks, and not yet unscaled or clipped.

    `folder` (default `<output_dir>/monitor`) gets metrics.jsonl, events.jsonl and TensorBoard's monitor_logs;
    `python -m minigpt diagnose` reads it. Each checkpoint of the Trainer holds the monitor's state.
    With several processes the first one watches, on the loss of all; sharded gradients are not watched.
    `sinks` take the place of the console and of the folder. `stop`: whether the monitor may end the training when
    its policy says so; its other actions are told, not done.
    """

    _trainer: Trainer | None = None

    def _begin(self) -> None:
        super()._begin()
        self._losses: list[Tensor] = []
        self._agreement = Agreement()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        self._leave()
        trainer = _trainer_of(self)
        why_not = _why_not(trainer)
        if why_not:
            if state.is_world_process_zero:
                print(f"training monitor: off, because {why_not}")
            return
        self._begin()
        if state.is_world_process_zero:
            self.loop = self._watch(trainer, args, state, parts["lr_scheduler"])
        self._stand_around_training_step(trainer)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        if self._trainer is None:
            return
        stop = isinstance(self._action, Stop) and self._may_stop
        if args.world_size > 1:
            # One rank must not leave the others waiting for its gradients.
            stop = self._agreement.any(stop, args.device)
        if stop:
            control.should_training_stop = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        if self.loop is not None:
            self.loop.restart_clock()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        checkpoint = _checkpoint(args, state)
        if self.loop is not None and checkpoint.is_dir():
            text = json.dumps(self.loop.state_dict())
            (checkpoint / STATE_NAME).write_text(text, encoding="utf-8")
            self.loop.restart_clock()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        self._leave()

    def _watch(
        self, trainer: Trainer, args: TrainingArguments, state: TrainerState, scheduler: Any
    ) -> LoopMonitor:
        model, optimizer = trainer.model, _innermost(trainer.optimizer)
        loop = LoopMonitor(
            model,
            optimizer,
            config=self._config,
            scaler=trainer.accelerator.scaler,
            folder=Path(args.output_dir) / "monitor" if self._folder is None else self._folder,
            sinks=self._sinks,
            warmup_steps=args.get_warmup_steps(state.max_steps),
            max_grad_norm=args.max_grad_norm or None,
            scheduled_lr=lambda step: float(scheduler.get_last_lr()[0]),
            vocab_size=_vocab_size_of_new(model),
            precision="fp16" if args.fp16 else "bf16" if args.bf16 else "off",
            start_step=state.global_step,
        )
        saved = _checkpoint(args, state) / STATE_NAME
        if state.global_step and saved.is_file():
            loop.load_state_dict(json.loads(saved.read_text(encoding="utf-8")))
        return loop

    def _stand_around_training_step(self, trainer: Trainer) -> None:
        own = trainer.training_step

        def training_step(*arguments: Any, **named: Any) -> Tensor:
            loss: Tensor = own(*arguments, **named)
            # A copy: with CUDA graphs the next micro-batch's loss lands in the same memory.
            self._losses.append(loss.detach().clone())
            if trainer.accelerator.sync_gradients:
                self._step(trainer)
            return loss

        # On this object, not on the class: other Trainers know nothing of it.
        trainer.training_step = training_step
        self._trainer = trainer

    def _step(self, trainer: Trainer) -> None:
        loss = torch.stack(self._losses).sum()
        self._losses = []
        if trainer.args.world_size > 1:
            loss = mean_over_ranks(loss)
        if self.loop is not None:
            self._action = self.loop.step(loss)

    def _leave(self) -> None:
        """Give the Trainer its own `training_step` back, and close the files."""
        if self._trainer is not None:
            del self._trainer.training_step
            self._trainer = None
        if self.loop is not None:
            self.loop.close()
            self.loop = None


def _trainer_of(callback: MonitorCallback) -> Trainer:
    """The Trainer that is calling: a callback is given all of its parts, but not the Trainer itself."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        caller = frame.f_locals.get("self")
        if isinstance(caller, Trainer) and callback in caller.callback_handler.callbacks:
            return caller
    raise RuntimeError("MonitorCallback was called by something that is not a transformers.Trainer")


def _why_not(trainer: Trainer) -> str | None:
    """Why this training cannot be watched; None: it can."""
    kind = str(trainer.accelerator.distributed_type).rpartition(".")[2]
    if kind in SHARDED:
        return f"the gradients are sharded ({kind}): no rank has them whole"
    if trainer.args.n_gpu > 1:
        return "the model is copied in threads (DataParallel); start one process a GPU with torchrun"
    return None


def _innermost(optimizer: Any) -> Optimizer:
    """The torch optimizer inside accelerate's."""
    while not isinstance(getattr(optimizer, "state", None), dict) or hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    found: Optimizer = optimizer
    return found


def _vocab_size_of_new(model: nn.Module) -> int | None:
    """What the first loss follows from: for a causal language model that begins from nothing; else None."""
    config: Any = getattr(model, "config", None)
    causal = type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))
    if config is None or not causal or config.name_or_path:
        return None
    size = getattr(config, "vocab_size", None)
    return size if isinstance(size, int) else None


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
