"""`minigpt replay`: the step that went wrong, done again from its crash bundle."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from minigpt.cli.options import DeviceOption, path_of


class PrecisionName(StrEnum):
    """Number formats to do the step again in."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    run = "run"


def replay(
    bundle: Annotated[
        Path, typer.Argument(parser=path_of, metavar="BUNDLE", help="A run's crash_step_N.pt.")
    ],
    precision: Annotated[
        PrecisionName | None,
        typer.Option(
            "--precision",
            help="The number format; run: as it was.",
            show_default="fp32, and as it was where fp32 shows nothing",
        ),
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Does the step of a crash bundle again and says where the first NaN or infinity came from.

    The bundle is all that is needed: it can be copied to another machine.

    \b
    minigpt replay checkpoints/pretrain_small/crash_step_120.pt
    minigpt replay crash_step_120.pt --precision run --device cpu
    """
    from minigpt.distributed.device import resolve_device
    from minigpt.training.replay import replay as replayed

    name = {PrecisionName.fp32: "off"}.get(precision, str(precision)) if precision else None
    for line in replayed(bundle, resolve_device("auto" if device is None else device), name):
        typer.echo(line)
