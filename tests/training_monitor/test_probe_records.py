"""What metrics.jsonl and TensorBoard show of the finer signals."""

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from minigpt.training_monitor.batch_facts import BatchFacts
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.metrics import MetricsSink
from minigpt.training_monitor.sinks.tensorboard import TensorBoardSink

FACTS = ParameterFacts(("0.weight",), ("0",), (4,), (True,), None)
FULL = StepSignals(
    step=10,
    loss=2.0,
    grad_norm=1.0,
    group_norms={"0": 1.0},
    weight_norms={"0": 4.0},
    update_ratios={"0": 0.5},
    scheduled_lr=0.1,
    leftover_grad_norm=0.0,
    optimizer_steps=9.0,
    parameters=ParameterSignals(FACTS, [1.0], [4.0], [2.0]),
    batch=BatchFacts(hash=7, tokens=8, distinct_tokens=3, top_fraction=0.5, label_match=1.0),
    look=Look(attention_logit_max={"blocks.0": 12.0}, output_logit_max=3.0, first_non_finite=None),
)


def test_record_holds_layers_batch_and_look_but_no_single_parameters(tmp_path: Path) -> None:
    sink = MetricsSink(tmp_path / "metrics.jsonl")
    sink.step(FULL, log=False)
    sink.step(StepSignals(step=11, loss=2.0, grad_norm=1.0), log=False)
    sink.close()
    full, plain = map(json.loads, (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines())
    assert (full["weight_norms"], full["update_ratios"]) == ({"0": 4.0}, {"0": 0.5})
    assert (full["scheduled_lr"], full["leftover_grad_norm"], full["optimizer_steps"]) == (0.1, 0.0, 9.0)
    assert full["batch"] == {
        "hash": 7,
        "tokens": 8,
        "distinct_tokens": 3,
        "top_fraction": 0.5,
        "label_match": 1.0,
    }
    assert full["look"] == {"attention_logit_max": {"blocks.0": 12.0}, "output_logit_max": 3.0}
    assert "parameters" not in full
    assert not {"weight_norms", "batch", "look", "scheduled_lr"} & plain.keys()
    assert plain["scaler_scale"] is None


def test_curves_show_layers_batch_and_look(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path)
    sink.step(FULL, log=False)
    sink.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    shown = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    expected = {
        "train_layers/grad_norm_0": 1.0,
        "train_layers/weight_norm_0": 4.0,
        "train_layers/update_ratio_0": 0.5,
        "train/leftover_grad_norm": 0.0,
        "train_data/distinct_tokens": 3.0,
        "train_data/label_match": 1.0,
        "train_forward/attention_logit_max_blocks.0": 12.0,
        "train_forward/output_logit_max": 3.0,
    }
    assert expected.items() <= shown.items()
    assert "train_data/label_copy" not in shown
