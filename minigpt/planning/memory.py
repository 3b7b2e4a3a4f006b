"""How much memory a training step needs, computed from the shape alone.

The activations are what autograd saves in the model's eager forward, tensor by tensor; compiled code saves
less. What a process holds before any model (Python, torch, a CUDA context) is not counted: it has already
left the available memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from minigpt.model.config import ModelConfig
from minigpt.model.count import num_matrix_parameters, num_parameters

FP32_BYTES = 4
CPU_RUNTIME_BYTES = 300 << 20
CPU_HEAP_DIVISOR = 5
"""A fifth of what comes and goes. Measured: steps of 1.1 to 2.9 GiB, eager on Linux, are met within 10 %."""
CPU_MICRO_BATCH_LIMIT = 16
"""Sequences that keep a CPU's cores busy: more only push the activations out of its caches."""


@dataclass(frozen=True)
class Workload:
    """What a training step computes on one rank."""

    model: ModelConfig
    vocab_size: int
    """The model's, that is padded."""
    micro_batch_size: int
    precision: str = "off"
    """off | bf16 | fp16."""
    activation_checkpointing: bool = False
    optimizer: Literal["adamw", "muon"] = "adamw"
    world_size: int = 1
    device_type: str = "cpu"


@dataclass(frozen=True)
class MemoryReport:
    """Bytes of each part at the fullest moment of a step: the start of the backward pass, gradients kept."""

    parameters: int
    gradients: int
    optimizer_state: int
    cast_weights: int
    """16-bit copies of the matrices that autocast keeps until the backward pass is through."""
    residual: int
    norms: int
    attention: int
    mlp: int
    logits_and_loss: int
    recomputed_block: int
    """With activation checkpointing: one block in full, as far as it outgrows the logits (gone by then)."""
    runtime: int
    """On a CPU: kernels' scratch memory and the holes that glibc's heap keeps between the tensors."""
    checkpoint_file: int
    """On disk, not in memory."""

    @property
    def activations(self) -> int:
        return self.residual + self.norms + self.attention + self.mlp + self.recomputed_block

    @property
    def fixed(self) -> int:
        """What does not depend on the micro-batch."""
        return self.parameters + self.gradients + self.optimizer_state + self.cast_weights

    @property
    def peak(self) -> int:
        return self.fixed + self.activations + self.logits_and_loss + self.runtime

    def parts(self) -> Iterator[tuple[str, int]]:
        """(name, bytes) of the parts that add up to the peak."""
        yield "parameters (fp32)", self.parameters
        yield "gradients (fp32)", self.gradients
        yield "optimizer state", self.optimizer_state
        if self.cast_weights:
            yield "16-bit weight copies", self.cast_weights
        yield "activations: residual stream", self.residual
        yield "activations: norms", self.norms
        if self.attention:
            yield "activations: attention", self.attention
            yield "activations: mlp", self.mlp
        if self.recomputed_block:
            yield "activations: one block at a time", self.recomputed_block
        yield "logits and loss", self.logits_and_loss
        if self.runtime:
            yield "kernels and heap (estimate)", self.runtime


def memory_report(work: Workload) -> MemoryReport:
    """The memory of one training step of `work`, part by part."""
    config = work.model
    total = num_parameters(config, work.vocab_size)
    matrices = num_matrix_parameters(config)
    tokens = work.micro_batch_size * config.context_length
    # DistributedDataParallel reduces in buckets that are a second copy of the gradients.
    gradients = FP32_BYTES * total * (2 if work.world_size > 1 else 1)
    # AdamW: two moments; Muon: one on the hidden matrices, AdamW on the rest.
    moments = 2 * total - (matrices if work.optimizer == "muon" else 0)
    head = work.vocab_size * config.hidden_size
    cast_weights = 0 if work.precision == "off" else 2 * (matrices + head)
    residual, norms, attention, mlp = _saved_by_blocks(work)
    logits = tokens * _logits_bytes(work)
    recomputed = max(0, tokens * _recomputed_bytes(work) - logits)
    passing = tokens * (residual + norms + attention + mlp) + recomputed + logits
    return MemoryReport(
        parameters=FP32_BYTES * total,
        gradients=gradients,
        optimizer_state=FP32_BYTES * moments,
        cast_weights=cast_weights,
        residual=tokens * residual,
        norms=tokens * norms,
        attention=tokens * attention,
        mlp=tokens * mlp,
        logits_and_loss=logits,
        recomputed_block=recomputed,
        runtime=CPU_RUNTIME_BYTES + passing // CPU_HEAP_DIVISOR if work.device_type == "cpu" else 0,
        checkpoint_file=FP32_BYTES * (total + moments),
    )


def _saved_by_blocks(work: Workload) -> tuple[int, int, int, int]:
    """Bytes a token of (residual stream, norms, attention, mlp), over all layers and the final norm."""
    config = work.model
    layers, hidden = config.num_layers, config.hidden_size
    residual, norms = 2 * FP32_BYTES * hidden, 2 * _norm_bytes(work, hidden, 1)
    final = (
        _norm_bytes(work, hidden, 1) + _linear_input_bytes(work, 1) if config.norm_position == "pre" else 0
    )
    attention, mlp = _attention_bytes(work), _mlp_bytes(work)
    if work.activation_checkpointing:
        # Each block keeps its input only.
        return (layers + 1) * FP32_BYTES * hidden, final, 0, 0
    return layers * residual + FP32_BYTES * hidden, layers * norms + final, layers * attention, layers * mlp


def _recomputed_bytes(work: Workload) -> int:
    """What activation checkpointing holds of the block it computes again, with its gradients."""
    if not work.activation_checkpointing:
        return 0
    hidden, config = work.model.hidden_size, work.model
    saved = FP32_BYTES * hidden + 2 * _norm_bytes(work, hidden, 1) + _attention_bytes(work) + _mlp_bytes(work)
    gradients = FP32_BYTES * hidden + 3 * _activation_bytes(work) * config.resolved_intermediate_size
    return saved + gradients


def _activation_bytes(work: Workload) -> int:
    return FP32_BYTES if work.precision == "off" else 2


def _linear_input_bytes(work: Workload, num_linears: int) -> int:
    """The input that `num_linears` layers share: autocast copies it for each of them, fp32 does not."""
    return work.model.hidden_size * (FP32_BYTES if work.precision == "off" else 2 * num_linears)


def _norm_bytes(work: Workload, width: int, count: int) -> int:
    """What `count` RMSNorms save besides their input: the root, and unfused on a CPU the normed input."""
    return FP32_BYTES * count * (1 + (0 if work.device_type == "cuda" else width))


def _dropout_bytes(work: Workload) -> int:
    if work.model.dropout == 0.0:
        return 0
    return work.model.hidden_size * (1 if work.device_type == "cuda" else _activation_bytes(work))


def _attention_bytes(work: Workload) -> int:
    """Inputs of query, key and value, what scaled_dot_product_attention keeps, dropout."""
    config, a = work.model, _activation_bytes(work)
    heads, kv_heads, head_dim = config.num_heads, config.resolved_num_kv_heads, config.head_dim
    kept = a * (2 * config.hidden_size + 2 * kv_heads * head_dim) + FP32_BYTES * heads
    if config.qk_norm:
        inputs = FP32_BYTES * (heads + kv_heads) * head_dim
        kept += inputs + _norm_bytes(work, head_dim, heads + kv_heads)
    if _attention_is_quadratic(work):
        kept += a * heads * config.context_length + a * 2 * (config.hidden_size - kv_heads * head_dim)
    return kept + _linear_input_bytes(work, 3) + _dropout_bytes(work)


def _attention_is_quadratic(work: Workload) -> bool:
    """Whether torch falls back to a kernel that stores all T x T weights.

    On CUDA grouped queries need the flash kernel, which has no fp32 and no fp16 on the older cards that use
    fp16; on MPS no kernel with a backward pass avoids it.
    """
    grouped = work.model.resolved_num_kv_heads != work.model.num_heads
    return work.device_type == "mps" or (work.device_type == "cuda" and grouped and work.precision != "bf16")


def _mlp_bytes(work: Workload) -> int:
    """The input of gate and up, gate, silu(gate), up, their product, dropout."""
    inner = 4 * _activation_bytes(work) * work.model.resolved_intermediate_size
    return _linear_input_bytes(work, 2) + inner + _dropout_bytes(work)


def _logits_bytes(work: Workload) -> int:
    """In fp32: log-softmax, its gradient and the logits'; with z-loss the logits and theirs as well."""
    copies = 3 if work.model.z_loss_weight == 0.0 else 5
    return copies * FP32_BYTES * work.vocab_size


def largest_micro_batch(
    work: Workload, *, sequences_per_rank_step: int, available_bytes: int | None, fraction: float = 0.8
) -> int:
    """As `fitting_micro_batch`, but 1 where not even that fits: the run is tried all the same."""
    fitting = fitting_micro_batch(
        work,
        sequences_per_rank_step=sequences_per_rank_step,
        available_bytes=available_bytes,
        fraction=fraction,
    )
    return fitting or 1


def fitting_micro_batch(
    work: Workload, *, sequences_per_rank_step: int, available_bytes: int | None, fraction: float = 0.8
) -> int | None:
    """The largest divisor of `sequences_per_rank_step` that fits `fraction` of the available memory, if any.

    `work.micro_batch_size` is not looked at. At most CPU_MICRO_BATCH_LIMIT on a CPU. Unknown available memory
    (None) counts as enough.
    """
    limit = CPU_MICRO_BATCH_LIMIT if work.device_type == "cpu" else sequences_per_rank_step
    one, two = (memory_report(replace(work, micro_batch_size=size)).peak for size in (1, 2))
    if available_bytes is not None:
        # The ranks of a CPU run share the machine's memory.
        usable = available_bytes * fraction / (work.world_size if work.device_type == "cpu" else 1)
        limit = min(limit, int((usable - one) // (two - one)) + 1)
    sizes = range(1, min(limit, sequences_per_rank_step) + 1)
    return max((size for size in sizes if sequences_per_rank_step % size == 0), default=None)
