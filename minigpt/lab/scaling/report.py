"""The costs as tables and as a plot."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from minigpt.lab.bench.table import table
from minigpt.lab.scaling.measure import TURN
from minigpt.lab.scaling.series import Cost, Series


def drift(seconds_per_step: Sequence[float]) -> float:
    """The last quarter's median over the first's: 1 where a step costs at the end what it did at the beginning."""
    quarter = max(1, len(seconds_per_step) // 4)
    return statistics.median(seconds_per_step[-quarter:]) / statistics.median(seconds_per_step[:quarter])


def long_run_text(seconds_per_step: Sequence[float]) -> str:
    """First and last TURN steps, and the drift between the quarters."""
    first, last = 1e3 * seconds_per_step[0], 1e3 * seconds_per_step[-1]
    low, high = 1e3 * min(seconds_per_step), 1e3 * max(seconds_per_step)
    steps = TURN * len(seconds_per_step)
    return (
        f"## Over {steps} steps of one run\n\n"
        f"first {TURN} steps: {first:.2f} ms a step; last {TURN}: {last:.2f} ms = {last / first:.3f} x "
        f"(any {TURN}: {low:.2f} to {high:.2f} ms); the last quarter's median over the first quarter's: "
        f"{drift(seconds_per_step):.3f}"
    )


def series_text(series: Series, costs: Sequence[Cost]) -> str:
    """The table of one series."""
    head = (series.name, "MFLOPs a token", "us a token", "predicted", "measured / predicted", "GFLOP/s")
    rows = [
        (
            str(cost.value),
            f"{cost.flops_per_token / 1e6:.1f}",
            "{1:.1f} ({0:.1f} to {2:.1f})".format(*(1e6 * value for value in _ordered(cost))),
            f"{1e6 * cost.predicted_seconds_per_token:.1f}",
            f"{cost.over_predicted:.2f}",
            f"{cost.flops_per_token / cost.seconds_per_token.median / 1e9:,.0f}",
        )
        for cost in costs
    ]
    return f"## {series.name}\n\n{table(head, rows)}"


def plot(
    path: Path, seconds_per_step: Sequence[float], measured: Sequence[tuple[Series, Sequence[Cost]]]
) -> None:
    """A panel for each series and one for the long run, in the format that the file's suffix names."""
    import matplotlib

    # No window: it must work where there is no screen.
    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, len(measured) + 1, figsize=(4 * (len(measured) + 1), 3.6))
    steps = [TURN * (number + 1) for number in range(len(seconds_per_step))]
    axes[0].plot(steps, [1e3 * value for value in seconds_per_step], marker=".")
    axes[0].set(xlabel="step of one run", ylabel="ms a step", ylim=(0, 1.3e3 * max(seconds_per_step)))
    for axis, (series, costs) in zip(axes[1:], measured, strict=True):
        values = [cost.value for cost in costs]
        low, middle, high = zip(*(_ordered(cost) for cost in costs), strict=True)
        below = [1e6 * (m - at) for m, at in zip(middle, low, strict=True)]
        above = [1e6 * (at - m) for m, at in zip(middle, high, strict=True)]
        axis.errorbar(values, [1e6 * m for m in middle], yerr=[below, above], marker="o", label="measured")
        predicted = [1e6 * cost.predicted_seconds_per_token for cost in costs]
        axis.plot(values, predicted, linestyle="--", label="from the FLOPs")
        axis.set(xlabel=series.name, ylabel="us a token", xscale="log", yscale="log")
        axis.set_xticks(values, labels=[str(value) for value in values], minor=False)
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axis.minorticks_off()
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def _ordered(cost: Cost) -> tuple[float, float, float]:
    spread = cost.seconds_per_token
    return spread.low, spread.median, spread.high
