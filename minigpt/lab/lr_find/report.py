"""What the range test and the trainings after it found: for people, for programs, and drawn."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt.atomic import write_text_atomically
from minigpt.lab.experiments.experiment import Claim, Results
from minigpt.lab.experiments.intervals import mean_of
from minigpt.lab.experiments.rate_curves import rate_text
from minigpt.lab.experiments.table import Table, columns_of
from minigpt.lab.lr_find.confirm import Tried, best_of, claim_of, table_of
from minigpt.lab.lr_find.rule import RULE, Suggestion, averaged
from minigpt.lab.lr_find.sweep import Sweep
from minigpt.lab.where import all_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class LrFindReport:
    """A suggested learning rate, with all that speaks for and against it."""

    command: str
    config_name: str
    optimizer: str
    sweep: Sweep
    suggestion: Suggestion
    configured: float
    """The peak rate of the configuration."""
    tried: tuple[Tried, ...]
    results: Results
    confirm_steps: int
    max_steps: int
    """Of the configuration's own run."""

    @property
    def claim(self) -> Claim | None:
        """Whether the trainings confirm the suggestion."""
        return claim_of(self.tried, self.results) if self.results else None

    @property
    def table(self) -> Table | None:
        """A row a rate that was trained with."""
        return table_of(self.tried, self.results) if self.results else None

    def markdown(self) -> str:
        """The whole report."""
        lines = [
            f"# lab lr-find: a learning rate for {self.config_name} ({self.optimizer})",
            "",
            self._said(),
            "",
        ]
        lines += [*self._better(), RULE, ""]
        if self.table is not None:
            lines += [self.table.markdown(), ""]
        if self.claim is not None:
            held = self.claim.held
            lines += [f"- Claim: {self.claim.text}. {held[0].upper()}{held[1:]}: {self.claim.found}", ""]
        if self.results and self.max_steps > self.confirm_steps:
            lines += [
                f"Each training has {self.confirm_steps} steps, the whole run {self.max_steps:,}: the best rate falls "
                "as runs grow longer (arXiv 2409.19913).",
                "",
            ]
        runs = sum(len(found) for found in self.results.values())
        return "\n".join([*lines, f"A range test and {runs} trainings by `{self.command}`. {self._where}."])

    def _better(self) -> list[str]:
        """What to use instead, where the trainings did not confirm the suggestion; and where they left it open."""
        if self.claim is None:
            return []
        best = best_of(self.tried, self.results)
        found = []
        if self.claim.held == "did not hold":
            found += [f"**Better, by the trainings: optimizer.learning_rate = {rate_text(best.rate)}.**", ""]
        ends = [one.rate for one in (self.tried[0], self.tried[-1])]
        if len(self.tried) > 1 and best.rate in ends:
            found += [
                f"The best of the trainings is the last tried on its side, {rate_text(best.rate)}: try further with "
                "--set optimizer.learning_rate.",
                "",
            ]
        return found

    @property
    def _where(self) -> str:
        return all_of([self.sweep.where, *[one.where for found in self.results.values() for one in found]])

    def _said(self) -> str:
        found, sweep = self.suggestion, self.sweep
        swept = (
            f"{len(sweep.losses)} steps from {sweep.rates[0]:.2g} to {sweep.rates[-1]:.2g}, "
            f"{'where it diverged' if sweep.diverged else 'without divergence'}"
        )
        if found.rate is None or found.edge is None or found.steepest is None:
            return f"**No suggestion**: {found.caveat}. The range test: {swept}."
        caveat = "" if found.caveat is None else f" Mind: {found.caveat}."
        edge = "began to rise after" if found.rose else "was lowest at"
        return (
            f"**Suggested: optimizer.learning_rate = {rate_text(found.rate)}** (configured: "
            f"{rate_text(self.configured)}). The range test: {swept}; the loss fell fastest at {found.steepest:.2g} "
            f"and {edge} {found.edge:.2g}.{caveat}"
        )

    def save(self, folder: Path, *, with_plot: bool = True) -> None:
        """report.md, results.json, range_test.csv and, where there were trainings, table.csv in `folder`; plot.png."""
        write_text_atomically(folder / "report.md", self.markdown() + "\n")
        write_text_atomically(folder / "range_test.csv", self._sweep_table().csv())
        if self.table is not None:
            write_text_atomically(folder / "table.csv", self.table.csv())
        found: dict[str, Any] = {
            "experiment": "lr-find",
            "command": self.command,
            "config": self.config_name,
            "where": self._where,
            "suggestion": asdict(self.suggestion),
            "configured": self.configured,
            "rule": RULE,
            "range_test": asdict(self.sweep),
            "tables": [] if self.table is None else [self.table.plain()],
            "claims": [] if self.claim is None else [asdict(self.claim)],
        }
        write_text_atomically(folder / "results.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        if with_plot:
            self.draw(folder / "plot.png")

    def _sweep_table(self) -> Table:
        rows = [
            [step, rate, loss, mean]
            for step, (rate, loss, mean) in enumerate(
                zip(self.sweep.rates, self.sweep.losses, averaged(self.sweep), strict=True), 1
            )
        ]
        return columns_of(("step", "learning rate", "loss", "averaged"), rows, "The range test")

    def draw(self, path: Path) -> None:
        """The range test on the left; on the right, where there were any, the trainings."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11.0, 4.2) if self.results else (7.0, 4.2), layout="constrained")
        axes = figure.subplots(1, 2 if self.results else 1, squeeze=False)[0]
        self._draw_sweep(axes[0])
        if self.results:
            self._draw_trainings(axes[1])
        figure.savefig(path, dpi=120)

    def _draw_sweep(self, axes: "Axes") -> None:
        rates = self.sweep.rates
        losses = [math.nan if loss is None else loss for loss in self.sweep.losses]
        means = [value if math.isfinite(value) else math.nan for value in averaged(self.sweep)]
        axes.plot(rates, losses, ".", color="C0", alpha=0.35, markersize=4, label="a step's batch")
        axes.plot(rates, means, color="C0", linewidth=2, label="averaged over a third of a decade")
        found = self.suggestion
        for rate, word, colour, style in (
            (found.steepest, "steepest", "C7", ":"),
            (found.edge, "edge", "C3", "--"),
            (found.rate, "suggestion", "C2", "-"),
            (self.configured, "configured", "C1", "-."),
        ):
            if rate is not None:
                axes.axvline(rate, color=colour, linestyle=style, label=f"{word} {rate:.2g}")
        axes.set(title="range test", xlabel="learning rate", ylabel="nats a token", xscale="log")
        axes.legend(fontsize="x-small")

    def _draw_trainings(self, axes: "Axes") -> None:
        means = [mean_of([run.final_loss for run in self.results[one.name]]) for one in self.tried]
        rates = [one.rate for one in self.tried]
        axes.plot(rates, [mean.value for mean in means], "-", color="C0", alpha=0.5)
        for one, mean in zip(self.tried, means, strict=True):
            runs = [run.final_loss for run in self.results[one.name]]
            colour = "C2" if one.is_suggestion else "C0"
            axes.plot(one.rate, mean.value, "o", color=colour, label=f"{rate_text(one.rate)}: {one.role}")
            axes.plot([one.rate] * len(runs), runs, ".", color="black", markersize=4)
        title = f"final loss of trainings of {self.confirm_steps} steps (dots: seeds)"
        axes.set(title=title, xlabel="peak learning rate", ylabel="nats a token", xscale="log")
        axes.set_xticks(rates, [rate_text(rate) for rate in rates], rotation=40)
        axes.set_xticks([], minor=True)
        axes.legend(fontsize="x-small")
