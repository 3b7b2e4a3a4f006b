"""Value embeddings: what a token adds to attention's values by itself, learned in a table for each of some layers.

A block knows a token through the stream alone, where what came before is mixed into it. Value residual learning
(ResFormer, arXiv 2410.17897) gives later blocks the first one's values beside their own; with a table in their place
(modded-nanogpt's speedruns, nanochat) it costs parameters and a lookup, but no product of matrices.
"""

# B batch, T time, K key/value heads, H head_dim

import torch
from torch import Tensor, nn

from minigpt.model.config import ModelConfig


class ValueEmbedding(nn.Module):
    """`gate * table(ids)`, (B, T, K, H): a row for each token id, times a learned number for each key/value head."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.num_kv_heads = config.resolved_num_kv_heads
        self.table = nn.Embedding(vocab_size, self.num_kv_heads * config.head_dim)
        self.gate = nn.Parameter(torch.ones(self.num_kv_heads))

    def forward(self, ids_BT: Tensor) -> Tensor:
        rows_BTKH = self.table(ids_BT).unflatten(-1, (self.num_kv_heads, -1))
        return self.gate.unsqueeze(-1) * rows_BTKH  # type: ignore[no-any-return]


class ValueEmbeddings(nn.ModuleDict):
    """The value embeddings of a model by layer; none, and no parameter, where `value_embedding_layers` is 0."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        layers = sorted(config.layers_with_value_embedding)
        super().__init__({str(layer): ValueEmbedding(config, vocab_size) for layer in layers})

    def of(self, layer: int, ids_BT: Tensor) -> Tensor | None:
        """What is added to the values of a layer, (B, T, K, H); None where it has no table."""
        name = str(layer)
        return self[name](ids_BT) if name in self else None
