"""The options that several commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer


def text_of(text: str) -> str:
    """`text`, unless a shell's unset variable left it empty: that is no wish for the default."""
    if not text.strip():
        raise typer.BadParameter("it is empty; give a value, or leave it out")
    return text


def path_of(text: str) -> Path:
    """`text` as a path; an empty one would be the current folder."""
    return Path(text_of(text))


ConfigOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--config",
        parser=text_of,
        metavar="NAME|FILE",
        help="A preset's name (`minigpt config list` shows them) or a YAML file.",
    ),
]
SetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key, such as training.max_steps=100 or optimizer.betas=[0.9,0.99]; can be repeated.",
    ),
]
RunDirOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--run-dir",
        parser=path_of,
        metavar="DIR",
        help="The run's folder.",
        show_default="checkpoints/pretrain_<config's name>",
    ),
]
ResumeOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--resume",
        parser=text_of,
        metavar="[PATH|healthy]",
        help="Go on from the newest good checkpoint of this run, from the last one taken in health, or from the "
        "checkpoint at PATH.",
    ),
]
DeviceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--device",
        parser=text_of,
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:N or mps.",
        show_default="auto: cuda, then mps, then cpu",
    ),
]

RESUME_NEWEST = "auto"
"""What --resume holds when it was given without a path."""


def with_resume_value(arguments: list[str]) -> list[str]:
    """`arguments` with a bare --resume spelt --resume=auto: typer knows no option whose value is optional."""
    rewritten: list[str] = []
    for index, argument in enumerate(arguments):
        if argument == "--":
            return rewritten + arguments[index:]
        following = arguments[index + 1] if index + 1 < len(arguments) else "-"
        bare = argument == "--resume" and following.startswith("-")
        rewritten.append(f"--resume={RESUME_NEWEST}" if bare else argument)
    return rewritten
