"""The monitor in anybody's PyTorch loop."""

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from minigpt.training_monitor.action import Action, Continue
from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.deferred_read import DeferredRead
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.norms import GradientNorms, PackedNorms
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.console import ConsoleSink
from minigpt.training_monitor.sinks.fan_out import FanOut
from minigpt.training_monitor.sinks.protocol import Sink


class LoopMonitor:
    """Watches a loop it knows nothing about and prints what deserves attention; changes nothing in it.

        monitor = TrainingMonitor.for_model(model, optimizer)
        for batch in batches:
            loss = model(batch)
            loss.backward()
            monitor.step(loss)        # after backward (and scaler.unscale_), before clipping
            optimizer.step()
            optimizer.zero_grad()

    On CUDA a step is judged when the next arrives, so nothing waits for the device; `close` judges the last.
    With `folder`, metrics.jsonl, events.jsonl and TensorBoard's monitor_logs are written there.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        config: MonitorConfig | None = None,
        scaler: torch.amp.GradScaler | None = None,
        warmup_steps: int = 0,
        max_grad_norm: float | None = None,
        tokens_per_step: int = 0,
        folder: str | Path | None = None,
        sinks: list[Sink] | None = None,
        start_step: int = 0,
    ) -> None:
        self.monitor = TrainingMonitor(config, warmup_steps=warmup_steps, max_grad_norm=max_grad_norm)
        self.step_number = start_step
        self._optimizer = optimizer
        self._scaler = scaler
        self._tokens_per_step = tokens_per_step
        self._max_grad_norm = max_grad_norm
        self._norms = GradientNorms(model.named_parameters())
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        self._reads: DeferredRead[tuple[StepSignals, PackedNorms]] = DeferredRead(device)
        self._sink = FanOut(_sinks(folder, start_step) if sinks is None else sinks)
        self._stepped_at = time.perf_counter()

    def step(self, loss: Tensor) -> Action:
        """Judges this step (CUDA: the one before); the action it asks for, Continue nearly always."""
        self.step_number += 1
        packed = self._norms.measure()
        value = loss.detach().float().reshape(1).to(packed.vector.device)
        vector = torch.cat([value, packed.vector])
        return self._judge(self._reads.push((self._facts(), packed), vector))

    def close(self) -> Action:
        """Judges what is still under way and closes the files."""
        action = self._judge(self._reads.drain())
        self._sink.flush()
        self._sink.close()
        return action

    def _facts(self) -> StepSignals:
        """This step without what is still on the device."""
        now = time.perf_counter()
        seconds, self._stepped_at = now - self._stepped_at, now
        return StepSignals(
            step=self.step_number,
            loss=float("nan"),
            grad_norm=float("nan"),
            lr=float(self._optimizer.param_groups[0]["lr"]) if self._optimizer else 0.0,
            scaler_scale=self._scaler.get_scale() if self._scaler and self._scaler.is_enabled() else None,
            tokens=self._tokens_per_step,
            tokens_seen=self._tokens_per_step * self.step_number,
            seconds=seconds,
            tokens_per_second=self._tokens_per_step / seconds if seconds > 0 else 0.0,
        )

    def _judge(self, ready: tuple[tuple[StepSignals, PackedNorms], list[float]] | None) -> Action:
        if ready is None:
            return Continue()
        (facts, packed), (loss, *norms) = ready
        grad_norm, group_norms = packed.read(norms)
        signals = _completed(facts, loss, grad_norm, group_norms, self._max_grad_norm)
        observation = self.monitor.observe(signals)
        self._sink.step(signals, log=False)
        for event in observation.events:
            self._sink.event(event)
        return observation.action


def _completed(
    facts: StepSignals, loss: float, grad_norm: float, group_norms: dict[str, float], clip: float | None
) -> StepSignals:
    """The step with what came from the device. A scaler skips the update of a non-finite gradient."""
    overflow = facts.scaler_scale is not None and not (abs(grad_norm) < float("inf"))
    return StepSignals(
        step=facts.step,
        loss=loss,
        grad_norm=grad_norm,
        lr=facts.lr,
        group_norms=group_norms,
        clipped=clip is not None and grad_norm > clip,
        update_skipped=overflow,
        scaler_scale=facts.scaler_scale,
        scaler_overflow=overflow,
        tokens=facts.tokens,
        tokens_seen=facts.tokens_seen,
        seconds=facts.seconds,
        tokens_per_second=facts.tokens_per_second,
    )


def _sinks(folder: str | Path | None, start_step: int) -> list[Sink]:
    sinks: list[Sink] = [ConsoleSink(show_steps=False)]
    if folder is not None:
        from minigpt.training_monitor.sinks.events import EventsSink
        from minigpt.training_monitor.sinks.metrics import MetricsSink
        from minigpt.training_monitor.sinks.tensorboard import TensorBoardSink

        path = Path(folder)
        sinks += [
            MetricsSink(path / "metrics.jsonl", keep_through=start_step),
            EventsSink(path / "events.jsonl", keep_through=start_step),
            TensorBoardSink(path / "monitor_logs", keep_through=start_step),
        ]
    return sinks
