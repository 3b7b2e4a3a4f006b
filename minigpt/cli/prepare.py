"""`minigpt prepare`: text -> token shards, ahead of training."""

from typing import TYPE_CHECKING

import typer

from minigpt.cli.options import ConfigOption, SetOption

if TYPE_CHECKING:
    from minigpt.data.prepare import Prepared


def prepare(config: ConfigOption = "small", overrides: SetOption = None) -> None:
    """Tokenizes the text, ahead of training.

    The token shards land in a cache that `train` reads (and fills itself, where this has not run). Text that
    is there already is not prepared again.

    \b
    minigpt prepare --config small
    minigpt prepare --config medium --set data.source=books/ --set data.tokenizer.vocab_size=8192
    """
    from minigpt.config.load import load_config
    from minigpt.data.prepare import prepare as prepare_data
    from minigpt.data.progress import PreparationStoppedError
    from minigpt.training.interrupt import caught_signals

    data = load_config(config, overrides or ()).config.data
    with caught_signals() as interrupt:
        try:
            prepared = prepare_data(data, should_stop=lambda: bool(interrupt))
        except PreparationStoppedError as stopped:
            typer.echo(str(stopped), err=True)
            raise typer.Exit(interrupt.exit_code) from None
    for name, value in _summary(prepared):
        typer.echo(f"{name:10} {value}")


def _summary(prepared: "Prepared") -> list[tuple[str, str]]:
    manifest = prepared.manifest
    train, validation = manifest.train, manifest.validation
    size, tokens = train.bytes + validation.bytes, train.tokens + validation.tokens
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in manifest.skipped.items())
    return [
        ("text", f"{size / 1e6:,.1f} MB of {', '.join(manifest.source)}"),
        ("documents", f"{train.documents:,} to train on, {validation.documents:,} to validate"),
        ("tokens", f"{train.tokens:,} to train on, {validation.tokens:,} to validate"),
        ("tokenizer", f"vocabulary of {manifest.vocab_size:,}, {size / tokens:.2f} bytes a token"),
        ("skipped", reasons or "nothing"),
        ("took", f"{manifest.seconds:.1f} s, {size / 1e6 / max(manifest.seconds, 1e-3):,.1f} MB/s"),
        ("folder", str(prepared.folder)),
    ]
