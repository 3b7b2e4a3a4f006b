"""`minigpt lab layers`: the norms of a checkpoint's weights and gradients, layer by layer."""

from pathlib import Path
from typing import Annotated

import typer

from minigpt.cli.lab_experiments import NoPlotOption, command_line
from minigpt.cli.options import DeviceOption, path_of
from minigpt.errors import user_path


def layers(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            parser=path_of,
            metavar="CHECKPOINT",
            help="A checkpoint, a run's folder (its newest good one), or anybody's .pt or .safetensors.",
        ),
    ],
    no_gradients: Annotated[
        bool, typer.Option("--no-gradients", help="The weights alone: no text, no forward pass.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            parser=path_of,
            metavar="DIR",
            help="Report, table and heat map.",
            show_default="checkpoints/lab_layers",
        ),
    ] = None,
    device: DeviceOption = None,
    no_plot: NoPlotOption = False,
) -> None:
    """Weight and gradient norms by layer and kind of matrix; names what is out of line.

    \b
    minigpt lab layers checkpoints/pretrain_small
    minigpt lab layers model.safetensors --no-gradients
    """
    from minigpt.distributed.device import resolve_device
    from minigpt.lab.experiments.report import check_drawing
    from minigpt.lab.layers.report import layers_report
    from minigpt.lab.script import say

    if not no_plot:
        check_drawing()
    folder = Path("checkpoints") / "lab_layers" if output is None else user_path(output, "--output")
    report = layers_report(
        user_path(checkpoint, "CHECKPOINT"),
        gradients=not no_gradients,
        device=resolve_device(device or "auto"),
        command=command_line(),
        progress=say,
    )
    report.save(folder, with_plot=not no_plot)
    typer.echo(report.markdown())
    say(f"report.md, results.json, table.csv{'' if no_plot else ' and heatmap.png'} are in {folder}")
