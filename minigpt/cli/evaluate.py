"""`minigpt evaluate`: loss, perplexity and bits per byte of a trained model."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from minigpt.cli.options import DeviceOption, SetOption, path_of


def evaluate(
    place: Annotated[
        Path,
        typer.Argument(
            parser=path_of, metavar="RUN_DIR|CHECKPOINT", help="A run's folder or a checkpoint file."
        ),
    ],
    overrides: SetOption = None,
    device: DeviceOption = None,
    best: Annotated[
        bool, typer.Option("--best", help="The checkpoint with the best validation loss.")
    ] = False,
) -> None:
    """Measures a trained model on the whole validation split.

    Of its own data, or of other data: bits per byte compare models with different tokenizers.

    \b
    minigpt evaluate checkpoints/pretrain_small
    minigpt evaluate checkpoints/pretrain_small --set data.source=books/ --set data.validation_fraction=0.5
    """
    from minigpt.distributed.device import resolve_device
    from minigpt.evaluation.saved import evaluate_saved
    from minigpt.generation.load import load_model
    from minigpt.training.precision import resolve_precision

    chosen = resolve_device("auto" if device is None else device)
    loaded = load_model(place, chosen, best=best)
    for line in loaded.damaged:
        typer.echo(f"warning: skipped a damaged checkpoint: {line}", err=True)
    precision = resolve_precision(loaded.config.training.mixed_precision, chosen)
    result = evaluate_saved(
        loaded, overrides or (), device=chosen, autocast=precision.autocast, progress=sys.stderr.isatty()
    )
    typer.echo(f"checkpoint     {loaded.path} (step {loaded.step:,})")
    typer.echo(f"loss           {result.loss:.4f} nats a token")
    typer.echo(f"perplexity     {result.perplexity:.2f}")
    typer.echo(f"bits per byte  {result.bits_per_byte:.4f}")
    typer.echo(f"over           {result.tokens:,} tokens, {result.bytes:,} bytes of validation text")
