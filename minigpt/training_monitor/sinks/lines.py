"""The lines that people read and grep, one a step, evaluation or event."""

from collections.abc import Mapping

from minigpt.training_monitor.signals import StepSignals


def step_line(signals: StepSignals) -> str:
    """`Step 10: Loss: 8.2345 grad_norm=0.0001 lr=0.0003 tokens/s=9090 ...`"""
    parts = [
        f"Step {signals.step}: Loss: {signals.loss:.4f}",
        f"grad_norm={signals.grad_norm:.4g}",
        f"lr={signals.lr:.4g}",
    ]
    if signals.tokens_per_second > 0:
        parts.append(f"tokens/s={signals.tokens_per_second:.0f}")
    if signals.tokens_seen:
        parts.append(f"tokens_seen={signals.tokens_seen}")
    if signals.mfu is not None:
        parts.append(f"mfu={signals.mfu:.3f}")
    if signals.memory_bytes is not None:
        parts.append(f"memory_gib={signals.memory_bytes / 2**30:.2f}")
    if signals.scaler_scale is not None:
        parts.append(f"scale={signals.scaler_scale:g}")
    if signals.update_skipped:
        parts.append("update=skipped")
    return " ".join(parts)


def evaluation_line(step: int, results: Mapping[str, float]) -> str:
    """`Step 200: validation_loss=2.3100 validation_perplexity=10.0744 ...`"""
    values = " ".join(f"validation_{name}={value:.4f}" for name, value in results.items())
    return f"Step {step}: {values}"
