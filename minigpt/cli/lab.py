"""`minigpt lab`: experiments that show what parts of MiniGPT are worth."""

from pathlib import Path
from typing import Annotated

import typer

from minigpt.cli import lab_experiments, lab_layers, lab_lr_find
from minigpt.cli.options import path_of

app = typer.Typer(rich_markup_mode=None)

MISSED = 1
"""Exit code of a drill that misses a target."""


@app.callback(invoke_without_command=True)
def lab(context: typer.Context) -> None:
    """Experiments: the claims about stable training, measured; and the training monitor, proved.

    \b
    minigpt lab stability --short                     which measures keep runs from blowing up
    minigpt lab lr-find --config small                a learning rate, suggested and tried
    minigpt lab layers checkpoints/pretrain_small     weights and gradients, layer by layer
    minigpt lab drill --reduced                       a dozen faults, in under a minute
    minigpt lab drill --traces traces/                all of them; trainings are recorded once
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("drill")
def drill(
    reduced: Annotated[
        bool, typer.Option("--reduced", help="A dozen faults and four controls on a smaller model.")
    ] = False,
    only: Annotated[
        str | None, typer.Option("--only", metavar="TEXT", help="Only scenarios with this in their name.")
    ] = None,
    healthy_only: Annotated[
        bool, typer.Option("--healthy-only", help="The healthy controls alone: how often it cries wolf.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="At most so many seeds of each.")
    ] = None,
    unseen_from: Annotated[
        int | None,
        typer.Option(
            "--unseen-from",
            metavar="SEED",
            min=2,
            help="Seeds from here on (--seeds of them, else one), each in a size, language and batch of its own: "
            "trainings that no threshold was set on.",
        ),
    ] = None,
    faults: Annotated[
        Path | None,
        typer.Option(
            "--faults", parser=path_of, metavar="DIR", help="Python files with scenarios of your own."
        ),
    ] = None,
    traces: Annotated[
        Path | None,
        typer.Option(
            "--traces", parser=path_of, metavar="DIR", help="Keep recordings here, and use those that fit."
        ),
    ] = None,
    recorded_only: Annotated[
        bool, typer.Option("--recorded-only", help="Judge the recordings in --traces; train nothing.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", parser=path_of, metavar="DIR", help="Write drill.md and drill.json here."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, show_default="one a processor")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 when a target is missed (--reduced always does).")
    ] = False,
) -> None:
    """Injects faults into tiny trainings and scores the monitor.

    Beside them run healthy but odd trainings, about which it must keep silent.

    \b
    minigpt lab drill --reduced
    minigpt lab drill --traces traces/ --output report/ --check
    minigpt lab drill --traces traces/ --only lr_jump
    minigpt lab drill --faults my_faults/ --only my_fault
    minigpt lab drill --unseen-from 1000 --seeds 2
    """
    import os

    from minigpt.errors import ConfigError
    from minigpt.lab.drill.drill import Choice, run_drill
    from minigpt.lab.drill.report import markdown, write_report
    from minigpt.lab.drill.targets import targets

    if recorded_only and traces is None:
        raise ConfigError("--recorded-only needs --traces DIR, where the recordings are")
    choice = Choice(
        reduced=reduced,
        only=only,
        healthy_only=healthy_only,
        own=faults,
        seeds=seeds,
        unseen_from=unseen_from,
        traces=traces,
        recorded_only=recorded_only,
        processes=processes or os.cpu_count() or 1,
    )
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)  # or say now that it cannot be, not after the trainings
    score = run_drill(choice, _progress)
    typer.echo(markdown(score), nl=False)
    if output is not None:
        write_report(score, output)
    if (check or reduced) and not all(target.is_met for target in targets(score)):
        raise typer.Exit(MISSED)


def _progress(done: int, of: int, name: str) -> None:
    typer.echo(f"recorded {done}/{of}: {name}", err=True)


lab_experiments.register(app)
app.command("lr-find")(lab_lr_find.lr_find)
app.command("layers")(lab_layers.layers)
