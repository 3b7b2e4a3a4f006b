"""`minigpt memory`: what a training step needs, and what would make it smaller."""

import typer

from minigpt.cli.options import ConfigOption, SetOption


def memory(config: ConfigOption = "medium", overrides: SetOption = None) -> None:
    """Prints the memory a training step needs.

    In parts, with what would save how much; for this machine's device, without any data.

    \b
    minigpt memory --config medium
    minigpt memory --config medium --set training.micro_batch_size=8
    """
    from minigpt.config.checks import check_batch
    from minigpt.config.load import load_config
    from minigpt.distributed.device import device_title, resolve_device
    from minigpt.planning.advice import advice_lines
    from minigpt.planning.available import available_bytes
    from minigpt.planning.preset import preset_workload
    from minigpt.training.precision import resolve_precision

    loaded = load_config(config, overrides or ())
    check_batch(loaded.config, world_size=1)
    training = loaded.config.training
    device = resolve_device(training.device)
    available = available_bytes(device)
    work, chosen = preset_workload(
        loaded.config.model,
        loaded.config.data.tokenizer,
        tokens_per_step=training.tokens_per_step,
        micro_batch_size=None if training.micro_batch_size == "auto" else training.micro_batch_size,
        precision=resolve_precision(training.mixed_precision, device).name,
        activation_checkpointing=training.activation_checkpointing == "on",
        optimizer=loaded.config.optimizer.name,
        device_type=device.type,
        available_bytes=available,
    )
    typer.echo(f"Memory of a training step of {loaded.name} on {device_title(device)}: {chosen}\n")
    vocab_size = (
        loaded.config.data.tokenizer.vocab_size if loaded.config.data.tokenizer.kind == "bpe" else None
    )
    for line in advice_lines(work, available, tokenizer_vocab_size=vocab_size):
        typer.echo(line)
