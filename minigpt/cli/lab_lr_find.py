"""`minigpt lab lr-find`: a learning rate, suggested by a range test and tried by short trainings."""

from pathlib import Path
from typing import Annotated

import typer

from minigpt.cli.lab_experiments import NoPlotOption, OutputOption, ProcessesOption, command_line
from minigpt.cli.options import ConfigOption, DeviceOption, SetOption
from minigpt.errors import user_path


def lr_find(
    config: ConfigOption = "small",
    overrides: SetOption = None,
    lowest: Annotated[float, typer.Option("--from", help="The rate of the first step.")] = 1e-5,
    highest: Annotated[float, typer.Option("--to", help="The rate of the last step.")] = 1.0,
    steps: Annotated[int, typer.Option("--steps", help="Of the range test.")] = 120,
    seeds: Annotated[
        int, typer.Option("--seeds", min=0, help="Trainings at each rate that is tried; 0: none are.")
    ] = 3,
    confirm_steps: Annotated[int, typer.Option("--confirm-steps", min=1, help="Of each of them.")] = 200,
    processes: ProcessesOption = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    no_plot: NoPlotOption = False,
) -> None:
    """Suggests a learning rate: a range test, then short trainings at it, below and above.

    \b
    minigpt lab lr-find --config small
    minigpt lab lr-find --config my.yaml --set data.source=my_text/ --seeds 0
    """
    from minigpt.checkpoint.lock import locked_folder
    from minigpt.config.load import load_config
    from minigpt.lab.experiments.report import check_drawing
    from minigpt.lab.lr_find.find import lr_find as find
    from minigpt.lab.script import say

    if not no_plot:
        check_drawing()
    changes = [*(overrides or ()), *([] if device is None else [f"training.device={device}"])]
    name = load_config(config, changes).name
    folder = Path("checkpoints") / f"lab_lr-find_{name}" if output is None else user_path(output, "--output")
    with locked_folder(folder, "--output"):
        report = find(
            config,
            changes,
            folder,
            command=command_line(),
            from_=lowest,
            to=highest,
            steps=steps,
            seeds=seeds,
            confirm_steps=confirm_steps,
            processes=processes,
            progress=say,
        )
        report.save(folder, with_plot=not no_plot)
    typer.echo(report.markdown())
    say(f"report.md, results.json{'' if no_plot else ', plot.png'} and the table are in {folder}")
