"""`minigpt verify`: whether what a run wrote is as it was written."""

import json
from pathlib import Path
from typing import Annotated

import typer

DAMAGED = 2


def verify(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="A run's folder, one checkpoint or crash bundle, or a prepared corpus."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Checks every file of a run: nothing is damaged, nothing is missing, and which checkpoint --resume would take.

    Reads everything, changes nothing, and may be run while the run trains. Exit code 0: all is good; 2: not all.

    \b
    minigpt verify checkpoints/pretrain_small
    minigpt verify checkpoints/pretrain_small/checkpoint_step_400.pt
    minigpt verify ~/.cache/minigpt/prepared/0123456789abcdef
    """
    from minigpt.training.verify.place import verify as verified

    report = verified(place)
    lines = [json.dumps(report.as_data(), ensure_ascii=False)] if as_json else report.lines()
    for line in lines:
        typer.echo(line)
    if not report.good:
        raise typer.Exit(DAMAGED)
