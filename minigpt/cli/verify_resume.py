"""`minigpt verify-resume`: whether a run of this configuration resumes to the last bit on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from minigpt.cli.options import ConfigOption, DeviceOption, SetOption


def verify_resume(
    config: ConfigOption = "small",
    overrides: SetOption = None,
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", help="Train so many steps of the run, three times over.")
    ] = 20,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR",
            help="Where the runs are made, and removed from in the end.",
            show_default="checkpoints",
        ),
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Proves on your machine that your run resumes bit for bit, or says what is not deterministic.

    Trains the first steps twice in one go, and once killed (SIGKILL), resumed, terminated (SIGTERM) and resumed
    again; then compares weights, optimizer, scaler, random states, position, monitor, metrics, curves and evaluations.
    Exit code 0: bit-exact; 3: not.

    \b
    minigpt verify-resume --config small
    minigpt verify-resume --config medium --set training.mixed_precision=fp16 --steps 40
    """
    from minigpt.lab.verify_resume.runs import Question
    from minigpt.lab.verify_resume.verify import verify_resume as verified

    changes = [*(overrides or ()), *([f"training.device={device}"] if device else ())]
    question = Question(config, tuple(changes), steps, output and output.expanduser())
    code = verified(question, lambda line: typer.echo(line))
    if code:
        raise typer.Exit(code)
