"""`minigpt lab stability` and its kin: one command an experiment, all with the same options."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from minigpt.cli.options import DeviceOption, SetOption, path_of
from minigpt.errors import user_path

COMMANDS = {
    "stability": "Which measures keep runs from blowing up: none, clipping, warm-up, everything.",
    "precision": "fp32, bf16, and fp16 with and without a loss scale: speed, memory, loss, underflow.",
    "norm": "Pre-Norm and Post-Norm over depths, with and without warm-up: gradients, steps to a loss.",
    "init": "First weights of nine schools: gradients by depth, first loss, and what the monitor says.",
    "accumulate": "Micro-batches against the one large batch: gradients, curves, memory.",
    "sensitivity": "Final loss over learning rates with and without QK-norm, z-loss, warm-up.",
}
"""By name, which is the module's in minigpt/lab/experiments as well, what the experiment asks."""

ShortOption: TypeAlias = Annotated[
    bool, typer.Option("--short", help="A form that takes a minute: shows that it works, proves nothing.")
]
SeedsOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--seeds", min=1, help="Trainings of each configuration.", show_default="its own"),
]
ProcessesOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--processes", min=1, help="Trainings at a time.", show_default="one a processor; one on a GPU"
    ),
]
OutputOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--output",
        parser=path_of,
        metavar="DIR",
        help="Trainings, tables and plot; the same folder again goes on with what is not done.",
        show_default="checkpoints/lab_..., named after it",
    ),
]
NoPlotOption: TypeAlias = Annotated[
    bool, typer.Option("--no-plot", help="Without matplotlib: pip install 'minigpt[lab]' has it.")
]


def register(app: typer.Typer) -> None:
    """Adds a command for each experiment, and `run` for a user's own."""
    for name, asks in COMMANDS.items():
        app.command(name, help=f"{asks}\n\n\b\nminigpt lab {name} --short\nminigpt lab {name}")(
            _command(name)
        )
    app.command("run")(run_own)


def _command(name: str) -> Callable[..., None]:
    def command(
        short: ShortOption = False,
        seeds: SeedsOption = None,
        overrides: SetOption = None,
        processes: ProcessesOption = None,
        output: OutputOption = None,
        device: DeviceOption = None,
        no_plot: NoPlotOption = False,
    ) -> None:
        _run(name, None, short, seeds, overrides, processes, output, device, no_plot)

    return command


def run_own(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", parser=path_of, help="A Python file with an EXPERIMENT.")
    ],
    short: ShortOption = False,
    seeds: SeedsOption = None,
    overrides: SetOption = None,
    processes: ProcessesOption = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    no_plot: NoPlotOption = False,
) -> None:
    """An experiment of your own: one file that says which trainings, and what to make of them.

    \b
    minigpt lab run my_experiment.py --short
    """
    _run(file.stem, user_path(file, "FILE"), short, seeds, overrides, processes, output, device, no_plot)


def _run(
    name: str,
    own: Path | None,
    short: bool,
    seeds: int | None,
    overrides: list[str] | None,
    processes: int | None,
    output: Path | None,
    device: str | None,
    no_plot: bool,
) -> None:
    from minigpt.lab.experiments.campaign import Terms
    from minigpt.lab.experiments.registry import experiment_in, experiment_named
    from minigpt.lab.experiments.run import default_folder, run_experiment

    experiment = experiment_named(name) if own is None else experiment_in(own)
    terms = Terms(
        folder=default_folder(experiment.name, short) if output is None else user_path(output, "--output"),
        seeds=seeds,
        short=short,
        overrides=(*(overrides or ()), *([] if device is None else [f"training.device={device}"])),
        processes=processes,
    )
    typer.echo(run_experiment(experiment, terms, command_line(), with_plot=not no_plot, own=own))


def command_line() -> str:
    """What the user typed, for the end of a report."""
    return "minigpt " + " ".join(shlex.quote(word) for word in sys.argv[1:])
