"""`minigpt generate`: text from a trained model, as it is written."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from minigpt.cli.options import DeviceOption, path_of

INTERRUPTED = 130


def generate(
    place: Annotated[
        Path,
        typer.Argument(
            parser=path_of, metavar="RUN_DIR|CHECKPOINT", help="A run's folder or a checkpoint file."
        ),
    ],
    prompt: Annotated[str, typer.Option(help="The text to continue.", show_default="a new document")] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Stop after this many tokens.")] = 200,
    temperature: Annotated[
        float, typer.Option(help="0: always the likeliest token; higher: more surprising.")
    ] = 0.8,
    top_k: Annotated[
        int, typer.Option(min=0, help="Draw from the k likeliest tokens only; 0: from all.")
    ] = 50,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest tokens of this total probability.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same text.")] = 0,
    device: DeviceOption = None,
    best: Annotated[
        bool, typer.Option("--best", help="The checkpoint with the best validation loss.")
    ] = False,
) -> None:
    """Writes text with a trained model.

    The newest good checkpoint of a run's folder is used, or the one given.

    \b
    minigpt generate checkpoints/pretrain_small --prompt "def "
    minigpt generate checkpoints/pretrain_small/checkpoint_step_1000.pt --temperature 0
    """
    from minigpt.distributed.device import resolve_device
    from minigpt.generation.load import load_model
    from minigpt.generation.text import stream_text

    # In a locale that is not UTF-8, Python hides the bytes of what was typed in lone surrogates.
    prompt = os.fsencode(prompt).decode("utf-8", "replace")
    loaded = load_model(place, resolve_device("auto" if device is None else device), best=best)
    for line in loaded.damaged:
        typer.echo(f"warning: skipped a damaged checkpoint: {line}", err=True)
    pieces = stream_text(
        loaded.model,
        loaded.tokenizer,
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k or None,
        top_p=top_p,
        seed=seed,
    )
    # A file or a pipe gets the text as it is (typer.echo would leave out parts); a terminal must not be steered by it.
    out = sys.stdout if sys.stdout.isatty() else getattr(sys.stdout, "stream", sys.stdout)
    print(prompt, end="", file=out, flush=True)
    try:
        for piece in pieces:
            # Each shows as soon as it is known.
            print(piece, end="", file=out, flush=True)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    finally:
        typer.echo()
