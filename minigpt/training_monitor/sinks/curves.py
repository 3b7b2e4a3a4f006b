"""A step as named curves, for the sinks that draw them."""

from minigpt.training_monitor.signals import StepSignals

STATUS_MARKS = {"suspected": 1.0, "sustained": 2.0, "transient": 0.0, "resolved": 0.0}
"""What a finding's turning points look like on its curve `anomalies/<name>`."""


def step_values(signals: StepSignals) -> dict[str, float]:
    """What every step has, and what is known of it beyond that."""
    values = {
        "train/loss": signals.loss,
        "train/grad_norm": signals.grad_norm,
        "train/lr": signals.lr,
        "train/update_skipped": float(signals.update_skipped),
        "train/tokens_per_second": signals.tokens_per_second,
    }
    if signals.mfu is not None:
        values["train/mfu"] = signals.mfu
    if signals.scaler_scale is not None:
        values["train/scaler_scale"] = signals.scaler_scale
    if signals.memory_bytes is not None:
        values["train/memory_gib"] = signals.memory_bytes / 2**30
    return values
