"""What a forward pass keeps for its backward pass, in bytes a token, by kind of layer.

Eager it is what autograd saves, tensor by tensor; compiled, what the partitioner of torch's AOTAutograd (2.13) keeps
of it: inputs and products of matrices, no copies, no casts, a dropout's mask as a byte.
"""

from dataclasses import dataclass

from minigpt.model.causal_attention import num_blocks
from minigpt.planning.workload import Workload

FP32_BYTES = 4


@dataclass(frozen=True)
class Kept:
    """Bytes a token."""

    residual: int = 0
    norms: int = 0
    attention: int = 0
    mlp: int = 0

    @property
    def total(self) -> int:
        return self.residual + self.norms + self.attention + self.mlp

    def times(self, count: int) -> "Kept":
        """Of `count` layers."""
        return Kept(count * self.residual, count * self.norms, count * self.attention, count * self.mlp)

    def plus(self, other: "Kept") -> "Kept":
        """Both together."""
        return Kept(
            self.residual + other.residual,
            self.norms + other.norms,
            self.attention + other.attention,
            self.mlp + other.mlp,
        )


def kept_by_model(work: Workload) -> Kept:
    """Over all layers and the final norm."""
    blocks = kept_by_block(work).times(work.model.num_layers)
    tables = len(work.model.layers_with_value_embedding)
    return blocks.plus(_kept_by_value_embedding(work).times(tables)).plus(_kept_at_the_end(work))


def kept_by_block(work: Workload) -> Kept:
    """Of one block until the backward pass reaches it."""
    stream = FP32_BYTES * work.model.hidden_size
    if work.recompute == "full":
        return Kept(residual=stream)
    if work.recompute == "selective":
        return Kept(residual=stream, attention=_attention_products(work), mlp=_mlp_products(work))
    return whole_block(work)


def whole_block(work: Workload) -> Kept:
    """Of a block that computes nothing again, or has just done so."""
    hidden = work.model.hidden_size
    return Kept(
        residual=2 * FP32_BYTES * hidden,
        norms=2 * _norm_bytes(work, hidden, 1),
        attention=_attention_bytes(work),
        mlp=_mlp_bytes(work),
    )


def _kept_by_value_embedding(work: Workload) -> Kept:
    """The rows looked up, for the gate's gradient; where eager blocks are computed again, also what they were given."""
    copies = 1 if work.compiled or work.recompute == "off" else 2
    return Kept(attention=FP32_BYTES * copies * _key_value_size(work))


def _kept_at_the_end(work: Workload) -> Kept:
    """The stream that leaves the last block, and the final norm that reads it."""
    if work.model.norm_position == "post":
        return Kept()
    hidden = work.model.hidden_size
    return Kept(residual=FP32_BYTES * hidden, norms=_norm_bytes(work, hidden, 1))


def _norm_bytes(work: Workload, width: int, count: int) -> int:
    """What `count` RMSNorms save besides their input: the root, and eager on a CPU the normed input."""
    unfused = work.device_type != "cuda" and not work.compiled
    return FP32_BYTES * count * (1 + (width if unfused else 0))


def _linear_input_bytes(work: Workload, num_linears: int) -> int:
    """The input that `num_linears` layers share: eager autocast copies it for each of them."""
    copies = num_linears if work.precision != "off" and not work.compiled else 1
    return work.activation_bytes * copies * work.model.hidden_size


def _dropout_bytes(work: Workload) -> int:
    if work.model.dropout == 0.0:
        return 0
    as_mask = work.device_type == "cuda" or work.compiled
    return work.model.hidden_size * (1 if as_mask else work.activation_bytes)


def _key_value_size(work: Workload) -> int:
    return work.model.resolved_num_kv_heads * work.model.head_dim


def _attention_bytes(work: Workload) -> int:
    """Inputs of query, key and value, what scaled_dot_product_attention keeps, dropout."""
    config, a = work.model, work.activation_bytes
    heads, kv_heads, head_dim = config.num_heads, config.resolved_num_kv_heads, config.head_dim
    kept = a * (2 * config.hidden_size + 2 * _key_value_size(work)) + FP32_BYTES * heads
    if config.qk_norm:
        inputs = (a if work.compiled else FP32_BYTES) * (heads + kv_heads) * head_dim
        kept += inputs + _norm_bytes(work, head_dim, heads + kv_heads)
    if attention_is_quadratic(work):
        kept += a * heads * config.context_length + a * 2 * (config.hidden_size - _key_value_size(work))
    return kept + _linear_input_bytes(work, 3) + _dropout_bytes(work)


def attention_is_quadratic(work: Workload) -> bool:
    """Whether torch falls back to a kernel that stores all T x T weights.

    On CUDA grouped queries need the flash kernel, which has no fp32 and no fp16 on the older cards that use
    fp16; on MPS no kernel with a backward pass avoids it.
    """
    grouped = work.model.resolved_num_kv_heads != work.model.num_heads
    return work.device_type == "mps" or (work.device_type == "cuda" and grouped and work.precision != "bf16")


def attention_scores_bytes(work: Workload) -> int:
    """Of `model.causal_attention`'s backward pass: scores and probabilities with their gradients.

    Each block of queries has more keys than the one before, so glibc's heap finds no room for it where that was.
    """
    length = work.model.context_length
    blocks = num_blocks(length)
    if not work.compiled or work.device_type != "cpu" or blocks == 1:
        return 0
    keys = sum(block * length // blocks for block in range(1, blocks + 1))
    heads = work.micro_batch_size * work.model.num_heads
    return 4 * work.activation_bytes * heads * (length // blocks) * keys


def _mlp_bytes(work: Workload) -> int:
    """The input of gate and up, gate, silu(gate) where it is eager, up, their product, dropout."""
    inner = (3 if work.compiled else 4) * work.activation_bytes * work.model.resolved_intermediate_size
    return _linear_input_bytes(work, 2) + inner + _dropout_bytes(work)


def _attention_products(work: Workload) -> int:
    """Query, key, value, attention's result with its log-sum-exp, and the output's."""
    wide = 3 * work.model.hidden_size + 2 * _key_value_size(work)
    return work.activation_bytes * wide + FP32_BYTES * work.model.num_heads


def _mlp_products(work: Workload) -> int:
    """Gate, up and, where no compiler sees that nobody reads it again, down."""
    down = 0 if work.compiled else work.model.hidden_size
    return work.activation_bytes * (2 * work.model.resolved_intermediate_size + down)
