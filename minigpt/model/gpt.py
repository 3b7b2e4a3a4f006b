"""The decoder-only transformer: embedding, blocks, a final RMSNorm, a (tied) head."""

# B batch, T time, D hidden, K key/value heads, H head_dim, V vocabulary

from typing import overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.model.block import Block
from minigpt.model.cache import KVCache
from minigpt.model.config import ModelConfig
from minigpt.model.fused_loss import fused_summed_loss
from minigpt.model.loss import LossSums, soft_capped
from minigpt.model.recompute import Recompute, recomputed
from minigpt.model.rotary import rotary_tables
from minigpt.model.value_embeddings import ValueEmbeddings


class GPT(nn.Module):
    """A Llama-like language model over `vocab_size` token ids.

    Built without values under `torch.device("meta")`; `minigpt.model.init.initialize` gives it its first weights.
    """

    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.recompute_blocks: Recompute = "off"
        self.embedding = nn.Embedding(vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        # Post-Norm blocks end in a norm of their own: another one would only add a scale.
        self.norm = (
            nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
            if config.norm_position == "pre"
            else nn.Identity()
        )
        self.head = None if config.tie_embeddings else nn.Linear(config.hidden_size, vocab_size, bias=False)
        self.value_embeddings = ValueEmbeddings(config, vocab_size)
        cos, sin = rotary_tables(config.head_dim, config.context_length, config.rope_theta)
        self.register_buffer("rotary_cos", cos, persistent=False)
        self.register_buffer("rotary_sin", sin, persistent=False)

    @overload
    def forward(self, inputs_BT: Tensor, targets_BT: None = None, cache: KVCache | None = None) -> Tensor: ...
    @overload
    def forward(self, inputs_BT: Tensor, targets_BT: Tensor, cache: None = None) -> LossSums: ...
    def forward(
        self, inputs_BT: Tensor, targets_BT: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor | LossSums:
        """Logits (B, T, V), or with targets the summed losses; a cache holds what came before the inputs.

        Raises:
            ValueError: the inputs, with what the cache holds, are longer than the context.
        """
        start = cache.length if cache is not None else 0
        end = start + inputs_BT.shape[1]
        if end > self.config.context_length:
            raise ValueError(f"{end} tokens do not fit context_length = {self.config.context_length}")
        cos, sin = self.rotary_cos[start:end], self.rotary_sin[start:end]
        x_BTD = self.embedding(inputs_BT)
        for index, block in enumerate(self.blocks):
            added_BTKH = self.value_embeddings.of(index, inputs_BT)
            if self.recompute_blocks != "off" and torch.is_grad_enabled():
                x_BTD = recomputed(block, self.recompute_blocks, x_BTD, cos, sin, added_BTKH)
            else:
                x_BTD = block(x_BTD, cos, sin, added_BTKH, None if cache is None else cache.layers[index])
        x_BTD = self.norm(x_BTD)
        head_VD = self.embedding.weight if self.head is None else self.head.weight
        if targets_BT is None:
            return soft_capped(F.linear(x_BTD, head_VD), self.config.logit_softcap)
        config = self.config
        return fused_summed_loss(x_BTD, head_VD, targets_BT, config.z_loss_weight, config.logit_softcap)
