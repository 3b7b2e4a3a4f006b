"""How many parameters a shape has, and how much arithmetic one token costs."""

from minigpt.model.config import ModelConfig

VOCAB_MULTIPLE = 64
"""Matrix kernels run faster on multiples of 64 (nanoGPT pads 50257 to 50304 for the same reason)."""


def padded_vocab_size(vocab_size: int) -> int:
    """The tokenizer's vocabulary rounded up to what matrix kernels like; the extra ids never occur."""
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def num_matrix_parameters(config: ModelConfig) -> int:
    """Parameters of the blocks' matrices: what each token is multiplied with, without embedding and head."""
    hidden, kv = config.hidden_size, config.resolved_num_kv_heads * config.head_dim
    attention = 2 * hidden * hidden + 2 * hidden * kv
    return config.num_layers * (attention + 3 * hidden * config.resolved_intermediate_size)


def num_parameters(config: ModelConfig, vocab_size: int) -> int:
    """All trainable parameters, a tied embedding counted once."""
    norms = config.num_layers * (2 * config.hidden_size + (2 * config.head_dim if config.qk_norm else 0))
    if config.norm_position == "pre":
        norms += config.hidden_size
    tokens = vocab_size * config.hidden_size * (1 if config.tie_embeddings else 2)
    return num_matrix_parameters(config) + norms + tokens + _num_value_parameters(config, vocab_size)


def _num_value_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Tables and gates of the value embeddings: a lookup, and so no share of the arithmetic."""
    heads = config.resolved_num_kv_heads
    return len(config.layers_with_value_embedding) * heads * (vocab_size * config.head_dim + 1)


def flops_per_token(config: ModelConfig, vocab_size: int) -> int:
    """Floating-point operations of forward and backward for one token at the full context.

    6 a matrix parameter (PaLM, arXiv 2204.02311, appendix B) with the head, plus the attention's two products:
    12 x layers x hidden x context, halved because causal attention needs only the lower triangle.
    """
    matrices = num_matrix_parameters(config) + vocab_size * config.hidden_size
    return 6 * matrices + attention_flops_per_token(config)


def attention_flops_per_token(config: ModelConfig) -> int:
    """The share of `flops_per_token` that grows with the context; a third of it is the forward pass's."""
    return 6 * config.num_layers * config.hidden_size * config.context_length
