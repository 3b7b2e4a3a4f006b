"""`minigpt train`: pretrain a model, or go on with it."""

from typing import Annotated

import typer

from minigpt.cli.options import DeviceOption, ResumeOption, RunDirOption, SetOption, text_of
from minigpt.errors import user_path


def train(
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            parser=text_of,
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

    changes = [*(overrides or ()), *([] if device is None else [f"training.device={device}"])]
    # The shell leaves the ~ of --run-dir=~/run as it is.
    folder = None if run_dir is None else user_path(run_dir, "--run-dir")
    code = pretrain(config, changes, folder, resume)
    if code:
        raise typer.Exit(code)
