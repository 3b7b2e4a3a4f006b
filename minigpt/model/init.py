"""The first weights, in one place, with the reason for each number."""

import math

import torch
from torch import Tensor, nn

from minigpt.model.gpt import GPT
from minigpt.model.rotary import rotary_tables
from minigpt.model.value_embeddings import ValueEmbedding

LOGIT_STD = 0.25
OWN_TOKEN_LOGIT = 2.0
VALUE_STREAM = 2**63
"""Added to the seed."""


def initialize(model: GPT, seed: int) -> None:
    """Fill every parameter and table of `model` in place, the same values on every device.

    - Matrices: N(0, init_std). With inputs of RMS 1 from the norms, activations start near init_std x sqrt(width):
      below 1, so no branch drowns the stream.
    - `output` and `down` write into the residual stream 2 x num_layers times: their std is divided by the root of that
      (GPT-2), so the stream's variance does not grow with depth. With zero_init_outputs they start at 0.
    - Embedding and head: the smaller of init_std and LOGIT_STD / sqrt(hidden_size). The head reads a vector of RMS 1,
      so its logits have std <= LOGIT_STD and the first loss stays near ln V (excess about LOGIT_STD^2 / 2 nats).
      Tied and Post-Norm, the stream is little more than the token's own embedding, whose logit is then about
      std x hidden_size: bounded by OWN_TOKEN_LOGIT, or a shallow wide model would start out repeating its input.
    - Tables of value embeddings: N(0, init_std x sqrt(hidden_size)), as large as the values they join. They come from a
      stream of their own, so that the other weights are those of a model without them.
    - Norm scales and gates: 1.
    """
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    std = config.init_std
    token_std = min(std, LOGIT_STD / math.sqrt(config.hidden_size))
    if config.tie_embeddings and config.norm_position == "post":
        token_std = min(token_std, OWN_TOKEN_LOGIT / config.hidden_size)
    branch_std = 0.0 if config.zero_init_outputs else std / math.sqrt(2 * config.num_layers)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            last = name.rsplit(".", 1)[-1]
            _normal(
                module.weight,
                {"output": branch_std, "down": branch_std, "head": token_std}.get(last, std),
                generator,
            )
        elif module is model.embedding:
            _normal(module.weight, token_std, generator)
        elif isinstance(module, nn.RMSNorm):
            nn.init.ones_(module.weight)
    generator = torch.Generator().manual_seed((seed + VALUE_STREAM) % 2**64)
    for embedding in model.value_embeddings.values():
        assert isinstance(embedding, ValueEmbedding)
        _normal(embedding.table.weight, std * math.sqrt(config.hidden_size), generator)
        nn.init.ones_(embedding.gate)
    cos, sin = rotary_tables(config.head_dim, config.context_length, config.rope_theta)
    model.rotary_cos.copy_(cos)
    model.rotary_sin.copy_(sin)


@torch.no_grad()
def _normal(weight: Tensor, std: float, generator: torch.Generator) -> None:
    """Draw on the CPU: a GPU's generator would give other values for the same seed."""
    weight.copy_(torch.randn(weight.shape, generator=generator) * std)
