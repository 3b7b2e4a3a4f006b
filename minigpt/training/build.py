"""From a configuration to a run: every part built once, in the order it is needed."""

import os
from contextlib import ExitStack
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from minigpt.checkpoint.files import FORMAT
from minigpt.checkpoint.rng import seed_everything
from minigpt.config.checks import check_batch
from minigpt.config.facts import facts_of
from minigpt.config.run_config import RunConfig
from minigpt.data.frequencies import unigram_loss
from minigpt.data.loader import BatchLoader
from minigpt.data.prepare import Prepared
from minigpt.data.windows import Windows
from minigpt.distributed.device import peak_flops
from minigpt.distributed.world import World
from minigpt.errors import DataError
from minigpt.model.count import flops_per_token, padded_vocab_size
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize
from minigpt.model.saved_weights import check_depth
from minigpt.optim.build import build_optimizers
from minigpt.planning.available import available_bytes
from minigpt.planning.limits import check_conceivable
from minigpt.planning.micro_batch import largest_micro_batch
from minigpt.planning.workload import Workload
from minigpt.training.allocator import keep_buffers
from minigpt.training.identity import Order, identity_of
from minigpt.training.interrupt import Interrupt
from minigpt.training.precision import Precision, resolve_precision
from minigpt.training.progress import Progress
from minigpt.training.run import Run
from minigpt.training.state import check_shapes
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.probes.model_probe import ModelProbe
from minigpt.training_monitor.sinks.fan_out import FanOut


def build_run(
    order: Order,
    prepared: Prepared,
    world: World,
    interrupt: Interrupt,
    stack: ExitStack,
    saved: dict[str, Any] | None,
) -> Run:
    """The run, on its device, at its first step; `stack` closes what it opened. Nothing on disk is touched.

    `saved` is the state of the checkpoint that it will be put into.
    """
    config, device = order.config, world.device
    check_batch(config, world.size)
    precision = resolve_precision(config.training.mixed_precision, device)
    tokenizer = prepared.tokenizer()
    train, validation = (
        Windows(tokens, config.model.context_length) for tokens in (prepared.train, prepared.validation)
    )
    asked = config.training.micro_batch_size
    check_conceivable(
        workload(config, world, precision, tokenizer.vocab_size, 1 if asked == "auto" else asked),
        tokens_per_rank_step=config.training.tokens_per_step // world.size,
        available_bytes=available_bytes(device),
    )
    micro_batch_size = _micro_batch_size(config, world, precision, tokenizer.vocab_size, saved)
    _round_alike_every_time(config.training.deterministic, device, stack)
    buffers_kept = config.training.keep_buffers and device.type == "cpu" and keep_buffers(stack)
    seed_everything((config.training.seed + world.rank) % 2**64)
    weights = None if saved is None else saved["model_state_dict"]
    model = build_model(config, tokenizer.vocab_size, device, weights)
    progress = Progress(
        config.training.max_steps,
        device.type,
        is_main=world.is_main,
        smaller_preset=None if order.name == "small" else "small",
    )
    sequences = config.training.tokens_per_step // config.model.context_length
    grad_accum_steps = sequences // (micro_batch_size * world.size)
    loader = BatchLoader(
        train,
        seed=config.data.seed,
        micro_batch_size=micro_batch_size,
        grad_accum_steps=grad_accum_steps,
        rank=world.rank,
        world_size=world.size,
        position=saved["position"]["window"] if saved is not None else 0,
        pin_memory=device.type == "cuda",
    )
    stack.callback(loader.close)
    stack.callback(progress.close)
    peak = peak_flops(device, precision.dtype)
    optimizers = build_optimizers(model, config.optimizer)
    return Run(
        name=order.name,
        run_dir=order.run_dir,
        config=config.training,
        schedule=config.schedule,
        checkpoints=config.checkpoint,
        learning_rate=config.optimizer.learning_rate,
        world=world,
        precision=precision,
        model=model,
        forward=_over_ranks(model, world),
        optimizers=optimizers,
        scaler=precision.grad_scaler(),
        probe=ModelProbe(model, optimizers),
        loader=loader,
        windows_per_epoch=len(train),
        validation=validation,
        bytes_per_token=prepared.manifest.validation.bytes / prepared.manifest.validation.tokens,
        tokenizer=tokenizer,
        micro_batch_size=micro_batch_size,
        workload=workload(config, world, precision, tokenizer.vocab_size, micro_batch_size),
        monitor=TrainingMonitor(
            config.monitor,
            # Put back into its own state, the monitor has seen the first steps.
            facts=replace(
                facts_of(
                    config,
                    precision=precision.name,
                    vocab_size=model.vocab_size,
                    unigram_loss=_unigram_loss(prepared),
                ),
                resumed=saved is not None and saved.get("format", FORMAT) != FORMAT,
                grad_accum_steps=grad_accum_steps,
            ),
        ),
        sinks=FanOut([]),
        progress=progress,
        interrupt=interrupt,
        flops_per_token=flops_per_token(config.model, model.vocab_size),
        peak_flops=None if peak is None else peak * world.size,
        identity=identity_of(order, prepared, device),
        buffers_kept=buffers_kept,
    )


def _unigram_loss(prepared: Prepared) -> float | None:
    """None where the first shard cannot be read: the run says so itself when it comes to it."""
    try:
        return unigram_loss(prepared.train)
    except DataError:
        return None


def _round_alike_every_time(wanted: str, device: torch.device, stack: ExitStack) -> None:
    """The same sums in the same order in every run, until `stack` closes; auto: on a CPU.

    Compiled code would else add up the embedding's gradient in the order in which its threads arrive, and no resumed
    run could equal the straight one to the last bit. On a GPU it costs speed, so there it has to be asked for; kernels
    that have no such form warn.
    """
    if wanted == "off" or (wanted == "auto" and device.type != "cpu"):
        return
    if device.type == "cuda":
        # Read when cuBLAS begins: workspaces of one size, so that its choice of kernels does not depend on the moment.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    # Only now: it imports half of torch, and where a second Ctrl-C ended that, its undoing would fail over it.
    stack.callback(torch.use_deterministic_algorithms, before, warn_only=only_warned)
    # Its other half writes NaN into every fresh buffer: a help in finding bugs, and a pass over memory.
    settings: Any = torch.utils.deterministic
    stack.callback(setattr, settings, "fill_uninitialized_memory", settings.fill_uninitialized_memory)
    settings.fill_uninitialized_memory = False


def build_model(
    config: RunConfig, vocab_size: int, device: torch.device, saved: dict[str, Tensor] | None = None
) -> GPT:
    """The model with its first weights, never held twice: built without values, then filled on the device.

    One that is to get `saved` weights must have their shapes: it is not even filled where it has not.
    """
    if saved is not None:
        check_depth(config.model, saved)
    with torch.device("meta"):
        model = GPT(config.model, padded_vocab_size(vocab_size))
    if saved is not None:
        check_shapes(model.state_dict(), saved)
    model.to_empty(device=device)
    initialize(model, config.training.seed)
    model.recompute_blocks = config.training.recompute
    return model


def workload(
    config: RunConfig, world: World, precision: Precision, vocab_size: int, micro_batch_size: int
) -> Workload:
    """What one rank computes in a forward and backward, for the memory estimate."""
    return Workload(
        model=config.model,
        vocab_size=padded_vocab_size(vocab_size),
        micro_batch_size=micro_batch_size,
        precision=precision.name,
        recompute=config.training.recompute,
        optimizer=config.optimizer.name,
        world_size=world.size,
        device_type=world.device.type,
        # With auto the first steps are eager.
        compiled=config.training.compile == "on" and world.device.type != "mps",
        accumulates=micro_batch_size * config.model.context_length * world.size
        < config.training.tokens_per_step,
    )


def _micro_batch_size(
    config: RunConfig, world: World, precision: Precision, vocab_size: int, saved: dict[str, Any] | None
) -> int:
    """The micro-batch asked for; auto: the one the run began with (another rounds differently), or one that fits."""
    if config.training.micro_batch_size != "auto":
        return config.training.micro_batch_size
    sequences = config.training.tokens_per_step // (config.model.context_length * world.size)
    if saved is not None and sequences % saved["micro_batch_size"] == 0:
        return int(saved["micro_batch_size"])
    size = largest_micro_batch(
        workload(config, world, precision, vocab_size, 1),
        sequences_per_rank_step=sequences,
        available_bytes=available_bytes(world.device),
    )
    # Ranks may see different amounts of free memory; the batch must be cut the same way on all of them.
    return int(world.from_main(size))


def _over_ranks(model: GPT, world: World) -> torch.nn.Module:
    if world.size == 1:
        return model
    # Renamed in torch 2.13, where the old name warns.
    known = signature(DistributedDataParallel).parameters
    new, old = "forward_sync_buffers", "broadcast_buffers"
    no_sync_of_buffers: dict[str, Any] = {new if new in known else old: False}
    return DistributedDataParallel(
        model,
        device_ids=[world.device.index] if world.device.type == "cuda" else None,
        **no_sync_of_buffers,
    )
