"""A GPT-2-style model trained by nanoGPT's recipe, written from that recipe (github.com/karpathy/nanoGPT, train.py).

LayerNorm without bias, GELU, learned positions, a tied head, one matrix for query, key and value; N(0, 0.02), the
branches' outputs divided by sqrt(2 layers); the whole model compiled with its loss.
"""

# B batch, T time, D hidden, N heads, H head_dim, V vocabulary

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.lab.bench.gate import Gate
from minigpt.lab.bench.peers.loop import autocast, facts_of, steps_of, train_plainly
from minigpt.lab.bench.shapes import Shape, Terms


class Block(nn.Module):
    """Attention and a GELU MLP of 4 x the width, each with LayerNorm and residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.num_heads = shape.num_heads
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attention_output = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        parts = self.query_key_value(self.attention_norm(x_BTD)).split(D, dim=2)
        q_BNTH, k_BNTH, v_BNTH = (
            part.view(B, T, self.num_heads, D // self.num_heads).transpose(1, 2) for part in parts
        )
        out_BNTH = F.scaled_dot_product_attention(q_BNTH, k_BNTH, v_BNTH, is_causal=True)
        x_BTD = x_BTD + self.attention_output(out_BNTH.transpose(1, 2).contiguous().view(B, T, D))
        hidden: Tensor = x_BTD + self.down(F.gelu(self.up(self.mlp_norm(x_BTD))))
        return hidden


class NanoGPT(nn.Module):
    """Token ids and targets to the mean loss."""

    def __init__(self, shape: Shape, vocab_size: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, shape.hidden_size)
        self.positions = nn.Embedding(shape.context_length, shape.hidden_size)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.num_layers))
        self.norm = nn.LayerNorm(shape.hidden_size, bias=False)
        self.head = nn.Linear(shape.hidden_size, vocab_size, bias=False)
        self.tokens.weight = self.head.weight
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                branch = name.endswith(("attention_output.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * shape.num_layers) if branch else 0.02)

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        x_BTD = self.tokens(inputs_BT) + self.positions(
            torch.arange(inputs_BT.shape[1], device=inputs_BT.device)
        )
        for block in self.blocks:
            x_BTD = block(x_BTD)
        logits_BTV = self.head(self.norm(x_BTD))
        return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=-100)


def train_nanogpt(terms: Terms, gate: Gate) -> None:
    """nanoGPT's recipe on `terms`; AdamW is fused on a CPU too, where nanoGPT itself would not."""
    steps, vocab_size = steps_of(terms)
    torch.manual_seed(terms.seed)
    model = NanoGPT(terms.shape, vocab_size).to(terms.device)
    gate.built(facts_of(model, terms, vocab_size))
    compiled = torch.compile(model) if terms.compile else model

    def loss_of(inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        with autocast(terms):
            loss: Tensor = compiled(inputs_BT, targets_BT)
        return loss

    train_plainly(model, loss_of, steps, terms, gate)
