"""All that can be measured in a loop that the monitor knows nothing about, as one vector a step."""

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import OptState
from torch.optim import Optimizer

from minigpt.training_monitor.batch_facts import BatchFacts
from minigpt.training_monitor.probes.batch import BatchProbe, DeviceBatch
from minigpt.training_monitor.probes.forward_capture import CallCapture, ForwardCapture, as_trained, batch_in
from minigpt.training_monitor.probes.kept_calls import Copies, KeptCalls, StepCalls
from minigpt.training_monitor.probes.loop_causality import LoopCausality
from minigpt.training_monitor.probes.model_probe import Measurement, ModelProbe, Reading


@dataclass(frozen=True, slots=True)
class LoopNumbers:
    """One step on the host."""

    model: Reading
    numbers: dict[str, float]
    """loss, and where known: lr, scaler_scale, leftover_grad_norm, future_influence."""
    batch: BatchFacts | None


@dataclass(frozen=True, slots=True)
class LoopMeasurement:
    """One step's numbers, those of `vector` still on the device."""

    vector: Tensor
    """fp32, 1-D: `named`, then the model's measurement, then the batch's."""
    named: Sequence[str]
    host: dict[str, float]
    model: Measurement
    batch: BatchFacts | DeviceBatch | None
    calls: StepCalls
    """Of the model, in this step."""

    def read(self, values: Sequence[float]) -> LoopNumbers:
        """The numbers, from `vector.tolist()`."""
        start, end = len(self.named), len(self.named) + self.model.vector.numel()
        numbers = self.host | dict(zip(self.named, values[:start], strict=True))
        reading = self.model.read(values[start:end], numbers.get("gradient_scale", 1.0))
        batch = self.batch.read(values[end:]) if isinstance(self.batch, DeviceBatch) else self.batch
        return LoopNumbers(reading, numbers, batch)


class LoopProbe:
    """Listens to the model's own calls between two measurements; see ModelProbe for what is measured."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        scaler: torch.amp.GradScaler | None,
        kept: KeptCalls,
    ) -> None:
        """`kept` is told the model's calls."""
        self._model = ModelProbe(model, optimizers)
        self._optimizers = optimizers
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._batch = BatchProbe()
        self._first_forward = True
        self._stale: list[weakref.ref[Tensor]] = []
        self._leftover: Tensor | float | None = None
        self._kept = kept
        self._causality = LoopCausality()
        self._checks_causality = False
        self._capture = ForwardCapture(
            model, self._on_forward, self._on_call, self._on_backward, self._causality.hear
        )
        self._parts: CallCapture | None = None

    @property
    def device(self) -> torch.device:
        return self._model.device

    def close(self) -> None:
        """Take the hooks off the model."""
        self._capture.remove()
        if self._parts is not None:
            self._parts.remove()

    def check_causality(self, wanted: bool) -> None:
        """Whether the coming step's measurement has `future_influence` in it."""
        self._checks_causality = wanted
        self._capture.listen(wanted)

    def watch_parts(self, parts: Iterable[nn.Module]) -> None:
        """Also keep the calls of these, in steps in which the model itself is not called."""
        self._parts = CallCapture(parts, self._on_part)

    @torch.no_grad()
    def measure(
        self,
        loss: Tensor | float,
        inputs: Tensor | None = None,
        targets: Tensor | None = None,
        gradient_scale: Tensor | float | None = None,
    ) -> LoopMeasurement:
        """The state of now, between backward and clipping; inputs and targets stand in for what was captured."""
        calls, given = self._kept.take(), None if inputs is None else (inputs, targets)
        influence = self._future_influence(calls, given) if self._checks_causality else None
        if inputs is not None:
            self._batch.clear()
            self._batch.add(inputs, targets)
        model, batch = self._model.measure(count_zeros=self._scaler is not None), self._batch.take()
        found: dict[str, Tensor | float | None] = {
            "loss": loss,
            "lr": self._optimizers[0].param_groups[0]["lr"] if self._optimizers else None,
            "leftover_grad_norm": self._leftover,
            "future_influence": influence,
            **self._scales(model.vector.device, gradient_scale),
        }
        self._first_forward, self._stale, self._leftover = True, [], None
        home = model.vector.device
        host, device = _split(found, home)
        parts = [*device.values(), model.vector]
        if isinstance(batch, DeviceBatch):
            parts.append(batch.vector.to(home, non_blocking=True))
        return LoopMeasurement(torch.cat(parts), tuple(device), host, model, batch, calls)

    def _future_influence(
        self, calls: StepCalls, given: tuple[Tensor, Tensor | None] | None
    ) -> Tensor | None:
        """Of the step's first call, if it was kept: that one was listened to."""
        first = calls.calls[0] if calls.calls and len(calls.calls) == calls.made else None
        return self._causality.measure(first, given)

    def _scales(self, device: torch.device, given: Tensor | float | None) -> dict[str, Tensor | float | None]:
        """The scaler's scale; and what the gradients are still multiplied by, where they are."""
        if self._scaler is None:
            return {"gradient_scale": given}
        # Asking the scaler with get_scale would wait for the device.
        scale = self._scaler.scale(torch.ones((), device=device))
        if given is None and self._gradients_are_scaled():
            given = scale
        return {"scaler_scale": scale, "gradient_scale": given}

    def _gradients_are_scaled(self) -> bool:
        """Whether the loop has not called unscale_ yet (it may leave that to scaler.step)."""
        states = getattr(self._scaler, "_per_optimizer_states", {})
        known = [states.get(id(optimizer)) for optimizer in self._optimizers]
        return bool(known) and all(state is None or state["stage"] is OptState.READY for state in known)

    def _on_call(self, module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        found = batch_in(arguments, named)
        copies: Copies = ()
        if found is not None:
            inputs, targets = found
            # Copies: the loop may fill the same buffers anew for its next micro-batch.
            copies = _copies(inputs, targets)
            if self._checks_causality and not self._kept.made:
                self._causality.begin(copies[0][1])
            self._batch.add(copies[0][1], as_trained(module, copies[1][1] if targets is not None else None))
        self._kept.add(module, arguments, named, self.device, copies)

    def _on_part(self, module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if self._first_forward:
            self._kept.add(module, arguments, named, self.device)

    def _on_forward(self) -> bool:
        """At the step's first forward: whether gradients are there, which the loop may still be about to zero."""
        if not self._first_forward:
            if self._stale and not self._model.gradients():
                # Zeroed since: what was there belonged to somebody else's backward (a GAN's other half).
                self._stale, self._leftover = [], 0.0
            return False
        self._first_forward = False
        gradients = self._model.gradients()
        if not gradients:
            self._leftover = 0.0
        # Not kept alive: most loops drop them before the new ones come.
        self._stale = [weakref.ref(gradient) for gradient in gradients]
        return bool(gradients)

    def _on_backward(self) -> None:
        if self._leftover is None:
            now = {id(gradient): gradient for gradient in self._model.gradients()}
            left = [
                gradient for ref in self._stale if (gradient := ref()) is not None and id(gradient) in now
            ]
            self._leftover = self._model.norm_of(left) if left else 0.0


def _copies(inputs: Tensor, targets: Tensor | None) -> Copies:
    both = ((inputs, inputs.clone()),)
    return both if targets is None else (*both, (targets, targets.clone()))


def _split(
    found: dict[str, Tensor | float | None], home: torch.device
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """What is on the host already, and what is not, as fp32 vectors of one element."""
    host: dict[str, float] = {}
    device: dict[str, Tensor] = {}
    for name, value in found.items():
        if isinstance(value, Tensor) and not value.is_cpu:
            device[name] = value.detach().reshape(1).float().to(home, non_blocking=True)
        elif value is not None:
            host[name] = float(value)
    return host, device
