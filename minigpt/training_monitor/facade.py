"""The monitor in anybody's PyTorch loop."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from minigpt.training_monitor.action import Action, Continue, graver
from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.deferred_read import DeferredRead
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.probes.kept_calls import KeptCalls, StepCalls
from minigpt.training_monitor.probes.looks import LoopLooks
from minigpt.training_monitor.probes.loop_probe import LoopMeasurement, LoopNumbers, LoopProbe
from minigpt.training_monitor.probes.memory import peak_memory_bytes
from minigpt.training_monitor.rerun import Rerun
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.console import ConsoleSink
from minigpt.training_monitor.sinks.fan_out import FanOut
from minigpt.training_monitor.sinks.guarded import guarded
from minigpt.training_monitor.sinks.protocol import Sink

# Step, learning rate, what it should be, seconds: what the host knows before the device's numbers come.
_Known = tuple[int, float | None, float, LoopMeasurement]


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
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        *,
        config: MonitorConfig | None = None,
        scaler: torch.amp.GradScaler | None = None,
        folder: str | Path | None = None,
        sinks: Sequence[Sink] | None = None,
        warmup_steps: int = 0,
        max_grad_norm: float | None = None,
        tokens_per_step: int = 0,
        scheduled_lr: Callable[[int], float] | None = None,
        vocab_size: int | None = None,
        precision: str | None = None,
        start_step: int = 0,
        late: bool | None = None,
    ) -> None:
        """`scheduled_lr` tells what the learning rate of a step (from 1) should be; `precision` is fp16, bf16 or
        off; with `tokens_per_step` = 0 tokens are counted where the model is called with them. `late`: whether a step
        is judged when the next one arrives; False has CUDA wait, and `step` answer for the very step."""
        optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer or ())
        facts = _run_facts(optimizers, scheduled_lr, warmup_steps, max_grad_norm)
        facts |= {"vocab_size": vocab_size, "precision": precision, "resumed": start_step > 0}
        self._facts = RunFacts(**facts)
        self.monitor = TrainingMonitor(config, facts=self._facts)
        self.step_number = start_step
        self._probe = LoopProbe(model, optimizers, scaler, _kept_calls(self.monitor.config))
        self._rerun = Rerun(model)
        self._probe.check_causality(self.monitor.causality_is_due(start_step + 1))
        looks = self.monitor.config.enabled and bool(self.monitor.config.look_every_steps)
        self._looks = LoopLooks(model, self._look_is_due if looks else None, late)
        self._looks.expect(start_step + 1)
        self._has_scaler = scaler is not None and scaler.is_enabled()
        self._scheduled_lr = scheduled_lr
        self._tokens_per_step = tokens_per_step
        self._tokens_seen = tokens_per_step * start_step
        self._max_grad_norm = max_grad_norm
        self._reads: DeferredRead[_Known] = DeferredRead(late)
        self._unheeded: Action = Continue()
        self._sink = FanOut(_sinks(folder, start_step) if sinks is None else [*map(guarded, sinks)])
        self.restart_clock()

    def step(
        self,
        loss: Tensor | float,
        *,
        inputs: Tensor | None = None,
        targets: Tensor | None = None,
        gradient_scale: Tensor | float | None = None,
    ) -> Action:
        """Judges this step (late, as on CUDA: the one before); the action it asks for, Continue nearly always.

        `inputs` and `targets` (B, T) are taken from the model's own calls where they are not given;
        `gradient_scale` is what the gradients are still multiplied by, where the scaler does not tell.

        Raises:
            ValueError: the loss is not one number.
        """
        if loss is None or (isinstance(loss, Tensor) and (loss.numel() != 1 or loss.is_complex())):
            found = "None" if loss is None else f"a {loss.dtype} tensor of shape {tuple(loss.shape)}"
            raise ValueError(
                f"monitor.step wants the loss as one real number, got {found}; take its mean, say"
            )
        self.step_number += 1
        self._looks.finish(self.step_number)
        measurement = self._probe.measure(loss, inputs, targets, gradient_scale)
        scheduled = self._scheduled_lr(self.step_number) if self._scheduled_lr else None
        known = (self.step_number, scheduled, self._lap(), measurement)
        action = self._judge(self._reads.push(known, measurement.vector))
        self._probe.check_causality(self.monitor.causality_is_due(self.step_number + 1))
        return self._heeded(action)

    def declare_change(self, text: str = "") -> None:
        """Something is about to change on purpose (data, learning rate, layers): see TrainingMonitor."""
        self._catch_up()
        self.monitor.declare_change()

    def watch_parts(self, parts: Iterable[nn.Module]) -> None:
        """For a model that is not called itself: calls of these parts of it are kept, to be made again at a NaN."""
        self._probe.watch_parts(parts)

    def restart_clock(self) -> None:
        """Leave the time since the last step out of the throughput: an evaluation, a checkpoint."""
        self._stepped_at = time.perf_counter()

    def close(self) -> Action:
        """Judges what is still under way, closes the files and lets go of the model."""
        action = self._heeded(self._judge(self._reads.drain()))
        self._probe.close()
        self._looks.close()
        self._sink.flush()
        self._sink.close()
        return action

    def state_dict(self) -> dict[str, Any]:
        """What later findings depend on, as plain values (JSON will do), of every step so far: one still under way is
        judged first, and the next `step` or `close` gives the action it asks for."""
        self._catch_up()
        self._sink.flush()
        return {"tokens_seen": self._tokens_seen, "monitor": self.monitor.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a state, in a monitor that was made with `start_step`."""
        self._tokens_seen = state["tokens_seen"]
        # It has seen the first steps: what it could not judge in a run half-way through, it can.
        self.monitor = TrainingMonitor(self.monitor.config, facts=replace(self._facts, resumed=False))
        if not self.monitor.load_state_dict(state["monitor"]):
            self.monitor = TrainingMonitor(self.monitor.config, facts=replace(self._facts, resumed=True))
        self._probe.check_causality(self.monitor.causality_is_due(self.step_number + 1))

    def _look_is_due(self, step: int) -> bool:
        # Not bound to one monitor: a restored state brings a new one.
        return self.monitor.look_is_due(step)

    def _catch_up(self) -> None:
        """Judge what is still under way."""
        self._unheeded = graver(self._unheeded, self._judge(self._reads.drain()))

    def _heeded(self, action: Action) -> Action:
        """What the caller is told: an action found while catching up is not forgotten."""
        unheeded, self._unheeded = self._unheeded, Continue()
        return graver(unheeded, action)

    def _lap(self) -> float:
        now = time.perf_counter()
        seconds, self._stepped_at = now - self._stepped_at, now
        return seconds

    def _judge(self, ready: tuple[_Known, list[float]] | None) -> Action:
        if ready is None:
            return Continue()
        (step, scheduled, seconds, measurement), values = ready
        signals = self._signals(step, scheduled, seconds, measurement.read(values))
        observation = self.monitor.observe(signals, partial(self._investigate, signals, measurement.calls))
        self._sink.step(signals, log=False)
        for event in [*observation.events, *self._rerun.take_notes()]:
            self._sink.event(event)
        return observation.action

    def _investigate(self, signals: StepSignals, calls: StepCalls, finding: Finding) -> Evidence:
        if not self.monitor.config.rerun_micro_batches:
            return {}
        found = self._rerun.examine(signals, calls, finding)
        if found:
            self.restart_clock()  # the time that it took is not the next step's
        return found

    def _signals(
        self, step: int, scheduled_lr: float | None, seconds: float, found: LoopNumbers
    ) -> StepSignals:
        numbers, model = found.numbers, found.model
        tokens = self._tokens_per_step or (found.batch.tokens if found.batch else 0)
        self._tokens_seen += tokens
        # A scaler skips the update of a non-finite gradient; without one, that is the loop's own decision.
        overflow = self._has_scaler and not isfinite(model.grad_norm)
        return StepSignals(
            step=step,
            loss=numbers["loss"],
            grad_norm=model.grad_norm,
            lr=numbers.get("lr", 0.0),
            group_norms=model.group_norms,
            weight_norms=model.weight_norms,
            update_ratios=model.update_ratios,
            clipped=self._max_grad_norm is not None and model.grad_norm > self._max_grad_norm,
            update_skipped=overflow,
            scaler_scale=numbers.get("scaler_scale"),
            scaler_overflow=overflow,
            tokens=tokens,
            tokens_seen=self._tokens_seen,
            seconds=seconds,
            tokens_per_second=tokens / seconds if seconds > 0 else 0.0,
            memory_bytes=peak_memory_bytes(self._probe.device),
            scheduled_lr=scheduled_lr,
            leftover_grad_norm=numbers.get("leftover_grad_norm"),
            optimizer_steps=model.optimizer_steps,
            parameters=model.parameters,
            batch=found.batch,
            look=self._looks.look_of(step),
            future_influence=_known(numbers.get("future_influence")),
        )


def _kept_calls(config: MonitorConfig) -> KeptCalls:
    most = config.rerun_micro_batches or int(config.check_causality)
    return KeptCalls(most if config.enabled else 0, config.rerun_most_mib << 20)


def _known(number: float | None) -> float | None:
    return None if number is None or isnan(number) else number


def _run_facts(
    optimizers: Sequence[Optimizer],
    scheduled_lr: Callable[[int], float] | None,
    warmup_steps: int,
    max_grad_norm: float | None,
) -> dict[str, Any]:
    """What the optimizers' settings and the schedule tell about the run."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates = [float(group.get("initial_lr", group["lr"])) for group in groups]
    if scheduled_lr is not None:
        rates.append(scheduled_lr(max(warmup_steps, 1)))
    adams = [optimizer for optimizer in optimizers if "betas" in optimizer.defaults]
    decays = [float(group["weight_decay"]) for group in groups if "weight_decay" in group]
    return {
        "warmup_steps": warmup_steps,
        "max_grad_norm": max_grad_norm,
        "learning_rate": max(rates, default=None),
        "optimizer": type(optimizers[0]).__name__.lower() if optimizers else None,
        "adam_eps": next((float(a.defaults["eps"]) for a in adams if "eps" in a.defaults), None),
        "weight_decay": max(decays, default=None),
        "has_command_line": False,
    }


def _sinks(folder: str | Path | None, start_step: int) -> list[Sink]:
    sinks: list[Sink] = [ConsoleSink(show_steps=False)]
    if folder is not None:
        from minigpt.training_monitor.sinks.in_folder import folder_sinks  # which imports TensorBoard

        sinks += folder_sinks(Path(folder), start_step)
    return sinks
