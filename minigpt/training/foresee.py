"""The forecast of a run, from what the user typed."""

from collections.abc import Sequence
from pathlib import Path

from minigpt.config.checks import check_batch
from minigpt.config.load import load_config
from minigpt.config.run_config import RunConfig
from minigpt.data.config import DataConfig
from minigpt.data.prepared_already import prepared_already
from minigpt.distributed.device import device_title, resolve_device
from minigpt.errors import DataError
from minigpt.planning.available import available_bytes
from minigpt.planning.checkpoints import most_checkpoints
from minigpt.planning.forecast import Forecast, Length, forecast
from minigpt.planning.pace import measured_pace
from minigpt.planning.preset import preset_workload
from minigpt.training.folder import default_run_dir
from minigpt.training.precision import resolve_precision


def foreseen(
    config_name: str,
    overrides: Sequence[str],
    run_dir: Path | None,
    *,
    devices: Sequence[int],
    try_out: bool,
) -> Forecast:
    """What the run will need on this machine; `try_out` times a few steps of a part of it.

    Raises:
        ConfigError: the configuration is not valid, or its device is not here.
        DataError: the tokenizer's file cannot be read.
    """
    loaded = load_config(config_name, overrides)
    config: RunConfig = loaded.config
    check_batch(config, world_size=1)
    training = config.training
    device = resolve_device(training.device)
    available = available_bytes(device)
    work = preset_workload(
        config.model,
        config.data.tokenizer,
        tokens_per_step=training.tokens_per_step,
        micro_batch_size=None if training.micro_batch_size == "auto" else training.micro_batch_size,
        precision=resolve_precision(training.mixed_precision, device).name,
        recompute=training.recompute,
        optimizer=config.optimizer.name,
        device_type=device.type,
        compiled=training.compile == "on" and device.type != "mps",
        available_bytes=available,
    )
    source = config.data.source
    tokens, trouble = _corpus(config.data)
    return forecast(
        loaded.name,
        device_title(device),
        work,
        Length(training.max_steps, training.tokens_per_step),
        micro_batch_is_auto=training.micro_batch_size == "auto",
        corpus=source if isinstance(source, str) else ", ".join(source),
        corpus_tokens=tokens,
        corpus_trouble=trouble,
        available_bytes=available,
        tokenizer_vocab_size=config.data.tokenizer.vocab_size
        if config.data.tokenizer.kind == "bpe"
        else None,
        checkpoints=most_checkpoints(config.checkpoint, training.max_steps),
        run_dir=run_dir or default_run_dir("pretrain", loaded.name),
        pace=measured_pace(work, device, available) if try_out else None,
        devices=devices,
    )


def _corpus(config: DataConfig) -> tuple[int | None, str | None]:
    """Its tokens to train on, if it is prepared; or what is wrong with it: no reason not to plan."""
    try:
        manifest = prepared_already(config)
    except DataError as error:
        return None, str(error)
    return (None if manifest is None else manifest.train.tokens), None
