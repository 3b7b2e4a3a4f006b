"""The monitor in Lightning's Trainer: `Trainer(..., callbacks=[MonitorCallback()])`."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from minigpt.training_monitor.action import Stop
from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.integrations.agreement import Agreement, mean_over_ranks
from minigpt.training_monitor.integrations.settings import MonitorSettings
from minigpt.training_monitor.probes.forward_capture import batch_in

# Lightning comes as two packages, whose Trainers each want their own callbacks: the one that is in use, or is there.
if TYPE_CHECKING or "lightning.pytorch" in sys.modules:
    from lightning.pytorch import Callback
elif "pytorch_lightning" in sys.modules:
    from pytorch_lightning import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        from pytorch_lightning import Callback

SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy", "XLAFSDPStrategy")


class MonitorCallback(MonitorSettings, Callback):
    """Watches every optimizer step of a Trainer, prints what deserves attention, and changes nothing in it.

    Lightning calls `on_before_optimizer_step` when the gradients are complete and unscaled, and clips after it.
    The loss is the mean over the step's backward passes, as `on_before_backward` sees them.

    `folder` (default `<trainer.default_root_dir>/monitor`) gets metrics.jsonl, events.jsonl and TensorBoard's
    monitor_logs; `python -m minigpt diagnose` reads it. Lightning's checkpoints hold the monitor's state.
    `sinks` take the place of the console and of the folder. `stop`: whether the monitor may end the training when
    its policy says so; its other actions are told, not done.

    Manual optimization: one step of the monitor a batch, at the first optimizer step in it. With several processes
    the first one watches, on the loss of all; sharded gradients are not watched.
    """

    _watching = False
    _saved: dict[str, Any] | None = None

    def _begin(self) -> None:
        super()._begin()
        self._losses: list[Tensor] = []
        self._batches: list[tuple[Tensor, Tensor | None]] = []
        self._stepped = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._leave()
        strategy = type(trainer.strategy).__name__
        if strategy in SHARDED:
            if trainer.is_global_zero:
                print(f"training monitor: off, because the gradients are sharded ({strategy})")
            return
        self._watching, self._agreement = True, Agreement()
        if trainer.is_global_zero:
            self.loop = self._watch(trainer, pl_module)
            # Many a training_step calls what the module is made of, and not the module.
            self.loop.watch_parts(
                part for part in pl_module.children() if any(True for _ in part.parameters())
            )

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._stepped:
            self._begin()
        found = batch_in((batch,), {}) if self.loop is not None else None
        if found is not None:
            self._batches.append(found)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        if self._watching and not self._stepped:
            scaler = _scaler(trainer)
            # The precision plugin has scaled it already; asking with get_scale would wait for the device.
            scale = None if scaler is None else scaler.scale(torch.ones((), device=loss.device))
            # A copy: with CUDA graphs the next micro-batch's loss lands in the same memory.
            self._losses.append(loss.detach().clone() if scale is None else loss.detach() / scale)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Optimizer) -> None:
        if not self._watching or self._stepped or not self._losses:
            return
        self._stepped = True
        # Lightning has divided each by accumulate_grad_batches, also where an epoch ends with fewer.
        shares = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        loss = torch.stack(self._losses).mean() * shares
        if _has_process_group():
            # Lightning's own reduce has a barrier before it, which waits for the device.
            loss = mean_over_ranks(loss)
        elif trainer.world_size > 1:
            loss = trainer.strategy.reduce(loss, reduce_op="mean")
        if self.loop is not None:
            inputs, targets = _joined(self._batches)
            self._action = self.loop.step(loss, inputs=inputs, targets=targets)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._stepped:
            return
        stop = isinstance(self._action, Stop) and self._may_stop
        # One rank must not leave the others waiting for its gradients.
        if _has_process_group():
            stop = self._agreement.any(stop, pl_module.device)
        else:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self.loop is not None:
            self.loop.restart_clock()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._leave()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._leave()

    def state_dict(self) -> dict[str, Any]:
        if self.loop is None:
            return self._saved or {}
        return {"step": self.loop.step_number, "loop": self.loop.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict

    def _watch(self, trainer: Any, pl_module: Any) -> LoopMonitor:
        saved = (self._saved or {}) if trainer.global_step else {}
        folder = Path(trainer.default_root_dir) / "monitor" if self._folder is None else self._folder
        norm = (trainer.gradient_clip_algorithm or "norm") == "norm"
        loop = LoopMonitor(
            pl_module,
            list(trainer.optimizers),
            config=self._config,
            scaler=_scaler(trainer),
            folder=folder,
            sinks=self._sinks,
            max_grad_norm=(trainer.gradient_clip_val or None) if norm else None,
            scheduled_lr=_scheduled_lr(trainer),
            precision=_precision(trainer),
            start_step=saved.get("step", trainer.global_step),
        )
        if saved:
            loop.load_state_dict(saved["loop"])
        return loop

    def _leave(self) -> None:
        """Close the files; what was learnt stays for a checkpoint that is still to come."""
        if self.loop is not None:
            self._saved = self.state_dict()
            self.loop.close()
            self.loop = None
        self._watching = False
        self._begin()


def _has_process_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _scaler(trainer: Any) -> torch.amp.GradScaler | None:
    scaler: torch.amp.GradScaler | None = getattr(trainer.precision_plugin, "scaler", None)
    return scaler


def _scheduled_lr(trainer: Any) -> Callable[[int], float] | None:
    """What the scheduler last set, where one follows the steps: another rate means that somebody else sets it too."""
    configs = trainer.lr_scheduler_configs
    if len(configs) != 1 or configs[0].interval != "step" or not hasattr(configs[0].scheduler, "get_last_lr"):
        return None
    scheduler = configs[0].scheduler
    return lambda step: float(scheduler.get_last_lr()[0])


def _precision(trainer: Any) -> str:
    """fp16 | bf16 | off, from Lightning's name: 16-mixed, bf16-true, 32-true, ..."""
    name = str(trainer.precision)
    return "fp16" if name.startswith("16") else "bf16" if name.startswith("bf16") else "off"


def _joined(
    batches: Sequence[tuple[Tensor, Tensor | None]],
) -> tuple[Tensor, Tensor | None] | tuple[None, None]:
    """The micro-batches of a step as one batch; of different lengths, as one row."""
    if not batches:
        return None, None
    alike = len({inputs.shape[1:] for inputs, _ in batches}) == 1
    inputs = torch.cat([own if alike else own.reshape(-1) for own, _ in batches])
    targets = [own if alike else own.reshape(-1) for _, own in batches if own is not None]
    return inputs, torch.cat(targets) if len(targets) == len(batches) else None
