"""Records as their tools write them, small."""

import json
from collections.abc import Iterable
from pathlib import Path

from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.metrics import MetricsSink
from tests.training_monitor.monitor_series import Triple


def write_metrics(path: Path, series: Iterable[Triple]) -> Path:
    """MiniGPT's metrics.jsonl, by its own sink."""
    sink = MetricsSink(path)
    for step, loss, norm in series:
        sink.step(StepSignals(step, loss, norm, lr=3e-4, group_norms={"head": norm}), log=False)
    sink.close()
    return path


def write_log(path: Path, *runs: Iterable[Triple]) -> Path:
    """A training.log with the lines of CONTRACTS, and what else stands in one."""
    lines = []
    for series in runs:
        for step, loss, norm in series:
            lines.append(f"Step {step}: Loss: {loss:.4f} grad_norm={norm:.4g} lr=0.0003 tokens/s=9090")
            lines.append(f"Step {step}: validation_loss=1.0000 validation_perplexity=2.7183")
    path.write_text("\n".join([*lines, "checkpoint_step_99.pt: regular", ""]), encoding="utf-8")
    return path


def write_trainer_state(path: Path, series: Iterable[Triple], *, logging_steps: int = 1) -> Path:
    """A trainer_state.json, in the keys and order of transformers 5; NaN stands bare, as json.dumps writes it."""
    history: list[dict[str, float]] = []
    step = 0
    for step, loss, norm in series:
        history.append(
            {"epoch": 0.1, "grad_norm": norm, "learning_rate": 4.5e-05, "loss": loss, "step": step}
        )
    evaluated = {"eval_loss": 3.25, "eval_runtime": 0.1, "eval_samples_per_second": 57.6, "step": step}
    total = {"epoch": 1.0, "step": step, "total_flos": 1.5e7, "train_loss": 99.0, "train_runtime": 4.0}
    state = {
        "best_metric": None,
        "epoch": 1.0,
        "global_step": step,
        "log_history": [*history, {"epoch": 1.0, **evaluated}, total],
        "logging_steps": logging_steps,
        "max_steps": step,
        "trial_params": None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    return path


def write_lightning_csv(path: Path, series: Iterable[Triple]) -> Path:
    """CSVLogger's metrics.csv: the learning rate on rows of its own, validation on others, cells left empty."""
    rows = ["epoch,grad_norm,lr-SGD,step,train_loss,val_loss"]
    for step, loss, norm in series:
        rows += [f",,0.1,{step},,", f"0,{norm!r},,{step},{loss!r},"]
        rows += [f"0,,,{step},,9.5"] if step % 5 == 0 else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*rows, ""]), encoding="utf-8")
    return path
