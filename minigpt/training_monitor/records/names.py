"""How the world calls step, loss, gradient norm and learning rate; and how it writes numbers."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite

from minigpt.training_monitor.records.record import UnreadableRecordError

USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "step": ("step", "global_step", "iter", "iteration", "iterations", "steps", "_step", "trainer/global_step",
             "train/global_step", "train_step", "train/step", "update", "num_updates"),
    "loss": ("loss", "train_loss", "train/loss", "train/train_loss", "train_loss_step", "train/loss_step",
             "training_loss", "train/ce_loss", "train/cross_entropy", "train/crossentropyloss", "loss/train",
             "lm_loss", "lm loss",
             "lm-loss-training/lm loss", "loss_metrics/global_avg_loss"),
    "grad_norm": ("grad_norm", "gnorm", "grad-norm", "gradient_norm", "train/grad_norm", "train/gradient_norm",
                  "grad_norm_step", "total_grad_norm", "optim/total_grad_norm", "grad_2.0_norm_total", "grad norm",
                  "grad-norm/grad-norm", "train/gnorm", "global_grad_norm",
                  "train/global_grad_norm", "grad/norm", "norm"),
    "lr": ("lr", "learning_rate", "train/lr", "train/learning_rate", "learning rate", "learning-rate",
           "optim/learning_rate_group0", "learning-rate/learning-rate", "lr-adamw", "lr-adam", "lr-sgd"),
    "tokens_per_second": ("tokens_per_second", "train/tokens_per_second", "tokens/s", "tok/s", "tokens_per_sec",
                          "throughput/tokens_per_sec", "throughput(tps)", "tps"),
    "scaler_scale": ("scaler_scale", "train/scaler_scale", "loss_scale", "loss-scale", "loss-scale/loss-scale",
                     "loss scale"),
    "tokens_seen": ("tokens_seen", "num_input_tokens_seen", "train/num_input_tokens_seen", "total_tokens"),
}  # fmt: skip
"""Field of StepSignals -> names for it, lower case, the likeliest first."""
LARGEST = 1 << 63
"""No count of steps or tokens is larger; whole numbers beyond a float's range are written by nobody."""
FIELDS = tuple(USUAL_NAMES)


def found_columns(present: Iterable[str], chosen: Mapping[str, str], place: str) -> dict[str, str]:
    """Field -> name, for the fields that `present` has under a usual name, or under the `chosen` one.

    Raises:
        UnreadableRecordError: a chosen name is not there, or neither loss nor grad_norm is.
    """
    names = list(present)
    by_lower = _of_one_run(names) | {name.strip().lower(): name for name in reversed(names)}
    found: dict[str, str] = {}
    for field, usual in USUAL_NAMES.items():
        if field in chosen:
            found[field] = _chosen(chosen[field], field, names, place)
            continue
        name = next((by_lower[candidate] for candidate in usual if candidate in by_lower), None)
        if name is not None:
            found[field] = name
    if "loss" not in found and "grad_norm" not in found:
        raise UnreadableRecordError(
            f"{place}: neither a loss nor a grad_norm among {_listed(names)}; say which they are, for example "
            "--columns loss=my_loss,grad_norm=my_norm"
        )
    return found


def _of_one_run(names: Sequence[str]) -> dict[str, str]:
    """Metric -> column of a chart exported from W&B, "run - metric" beside its __MIN and __MAX; {} for several runs."""
    parts = [
        (*name.strip().rpartition(" - "), name) for name in names if not name.endswith(("__MIN", "__MAX"))
    ]
    runs = {run for run, dash, _, _ in parts if dash}
    return (
        {metric.lower(): name for _, dash, metric, name in reversed(parts) if dash} if len(runs) == 1 else {}
    )


def _chosen(name: str, field: str, names: Sequence[str], place: str) -> str:
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UnreadableRecordError(
        f"--columns {field}={name}: {place} has no {name!r}; {hint}it has {_listed(names)}"
    )


def _listed(names: Sequence[str], most: int = 12) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def number(value: object) -> float | None:
    """The number; None for what is none (an empty cell, null, a word). NaN and infinity are numbers."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value) if isinstance(value, float) or abs(value) < LARGEST else None
    if isinstance(value, str):
        try:
            return float(value.strip().replace("tensor(", "").rstrip(")"))
        except ValueError:
            return None
    return None


def whole(value: object) -> int | None:
    """The step number; None for what is none."""
    found = number(value)
    return (
        int(found)
        if found is not None and isfinite(found) and abs(found) < LARGEST and found == int(found)
        else None
    )
