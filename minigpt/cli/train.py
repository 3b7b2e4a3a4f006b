"""`minigpt train`: pretrain a model, or go on with it."""

from typing import Annotated

import typer

from minigpt.cli.options import DeviceOption, ResumeOption, RunDirOption, SetOption


def train(
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="NAME|FILE",
            help="A preset's name (`minigpt config list` shows them) or a YAML file.",
            show_default="small",
        ),
    ] = None,
    overrides: SetOption = None,
    run_dir: RunDirOption = None,
    resume: ResumeOption = None,
    device: DeviceOption = None,
) -> None:
    """Pretrains a model; Ctrl-C saves and stops, --resume goes on exactly there.

    \b
    minigpt train --config small
    minigpt train --config small --set data.source=input.txt --set training.max_steps=500
    minigpt train --config medium --resume
    torchrun --nproc-per-node 2 -m minigpt train --config medium
    """
    from minigpt.training.pretrain import pretrain

    changes = [*(overrides or ()), *([f"training.device={device}"] if device else ())]
    # The shell leaves the ~ of --run-dir=~/run as it is.
    code = pretrain(config, changes, run_dir and run_dir.expanduser(), resume)
    if code:
        raise typer.Exit(code)
