"""`minigpt plan`: what a run will need and how long it will take, before it starts."""

import json
from typing import Annotated

import typer

from minigpt.cli.options import ConfigOption, DeviceOption, RunDirOption, SetOption
from minigpt.errors import user_path


def plan(
    config: ConfigOption = "medium",
    overrides: SetOption = None,
    run_dir: RunDirOption = None,
    device: DeviceOption = None,
    devices: Annotated[
        list[int] | None,
        typer.Option(
            "--devices", min=2, help="Also on so many devices; can be repeated.", show_default="2, 4, 8"
        ),
    ] = None,
    try_out: Annotated[
        bool, typer.Option("--try-out/--no-try-out", help="Time one and two blocks for a few seconds.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with sizes in bytes.")] = False,
) -> None:
    """Says what a run will need, before it starts: memory in parts, disk, hours, text.

    For this machine's device: the largest micro-batch that fits, what would make it smaller and at what price.
    Nothing is prepared or written.

    \b
    minigpt plan --config medium
    minigpt plan --config medium --set training.micro_batch_size=8 --set model.context_length=1024
    minigpt plan --config my.yaml --json | jq .memory.peak
    """
    from minigpt.planning.report import report_lines
    from minigpt.training.foresee import foreseen

    changes = [*(overrides or ()), *([] if device is None else [f"training.device={device}"])]
    folder = None if run_dir is None else user_path(run_dir, "--run-dir")
    forecast = foreseen(config, changes, folder, devices=devices or (2, 4, 8), try_out=try_out)
    if as_json:
        typer.echo(json.dumps(forecast.as_data(), indent=2))
        return
    for line in report_lines(forecast):
        typer.echo(line)
