"""MiniGPT as its users get it: `minigpt train`, the whole of it, held at the gate between two steps."""

import json
from collections.abc import Sequence
from pathlib import Path

from minigpt.data.loader import StepBatches
from minigpt.lab.bench.gate import Facts, Gate
from minigpt.lab.bench.settings import data_overrides, plain_settings, shape_overrides, training_overrides
from minigpt.lab.bench.shapes import Terms
from minigpt.training.pretrain import pretrain
from minigpt.training.run import Run
from minigpt.training_monitor.signals import StepSignals


def train_as_peers(terms: Terms, gate: Gate, overrides: Sequence[str]) -> None:
    """A run of `terms` through `pretrain`: real loop and loader, monitor, records, clipping. Ends with `Stopped`.

    The model has nothing that the peers' have not, and AdamW trains it; `overrides` (section.key=value) change that.
    """
    config = Path("bench.yaml")
    # JSON is YAML.
    config.write_text(json.dumps(plain_settings(terms)), encoding="utf-8")
    _train(str(config), [*data_overrides(terms), *training_overrides(terms), *overrides], gate)


def train_preset(terms: Terms, gate: Gate, overrides: Sequence[str]) -> None:
    """The same by the preset's own recipe: its optimizer, its schedule, its switches of the model."""
    sized = [*shape_overrides(terms), *data_overrides(terms), *training_overrides(terms)]
    _train(terms.shape.preset, [*sized, *overrides], gate)


def _train(config: str, overrides: list[str], gate: Gate) -> None:
    code = pretrain(config, overrides, Path("run"), None, when_built=lambda run: _hold(run, gate))
    raise AssertionError(f"the run ended by itself, with {code}, before the match was over")


def _hold(run: Run, gate: Gate) -> None:
    """Has the loop wait at the gate before it takes a step's data, and tell the gate each step's loss."""
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    names = " + ".join(type(optimizer).__name__ for optimizer in run.optimizers)
    gate.built(Facts(parameters, run.flops_per_token, run.model.vocab_size, note=names))
    next_step, tell_step = run.loader.next_step, run.progress.step

    def gated() -> StepBatches:
        gate.next_step()
        return next_step()

    def told(signals: StepSignals) -> None:
        tell_step(signals)
        gate.record(signals.loss)

    run.loader.next_step = gated  # type: ignore[method-assign]
    run.progress.step = told  # type: ignore[method-assign]
