"""What follows from a configuration without running it."""

import math

from minigpt.config.run_config import RunConfig
from minigpt.model.count import num_parameters, padded_vocab_size


def derived(config: RunConfig) -> list[str]:
    """Lines on the size of the model and the length of the run that the numbers add up to."""
    model, training, schedule = config.model, config.training, config.schedule
    tokens = training.max_steps * training.tokens_per_step
    warmup = schedule.warmup_steps / training.max_steps
    return [
        *_size(config, tokens),
        f"blocks: {model.num_heads} heads of {model.head_dim}, "
        f"{model.resolved_num_kv_heads} for keys and values; SwiGLU of {model.resolved_intermediate_size}",
        f"length: {training.max_steps:,} steps x {training.tokens_per_step:,} tokens = {tokens:,} tokens; "
        f"warm-up {warmup:.1%} of the steps",
    ]


def _size(config: RunConfig, tokens: int) -> list[str]:
    tokenizer = config.data.tokenizer
    if tokenizer.kind == "file":
        return [f"vocabulary: as in {tokenizer.path}, which is not read here"]
    vocab_size = padded_vocab_size(257 if tokenizer.kind == "bytes" else tokenizer.vocab_size)
    parameters = num_parameters(config.model, vocab_size)
    return [
        f"parameters: {parameters:,} with a vocabulary of {vocab_size:,}; "
        f"{tokens / parameters:.1f} tokens a parameter",
        f"loss before training: about ln {vocab_size} = {math.log(vocab_size):.2f}",
    ]
