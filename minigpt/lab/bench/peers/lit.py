"""litgpt's GPT and loss, as its pretraining has them (litgpt/pretrain.py, `fit`)."""

import torch
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.pretrain import initialize_weights
from litgpt.utils import chunked_cross_entropy
from torch import Tensor

from minigpt.lab.bench.gate import Gate
from minigpt.lab.bench.peers.loop import autocast, facts_of, steps_of, train_plainly
from minigpt.lab.bench.shapes import Terms


class _OneDevice:
    """What `initialize_weights` asks of Fabric: that the weights are not sharded."""

    strategy = None


def train_litgpt(terms: Terms, gate: Gate) -> None:
    """litgpt's recipe on `terms`; AdamW is fused on a CPU too, where litgpt itself would not."""
    steps, vocab_size = steps_of(terms)
    shape = terms.shape
    torch.manual_seed(terms.seed)
    model = GPT(
        Config(
            block_size=shape.context_length,
            vocab_size=vocab_size,
            padded_vocab_size=vocab_size,
            n_layer=shape.num_layers,
            n_head=shape.num_heads,
            n_embd=shape.hidden_size,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
            intermediate_size=shape.model.resolved_intermediate_size,
        )
    )
    initialize_weights(_OneDevice(), model, n_layer=shape.num_layers, n_embd=shape.hidden_size)
    model.transformer.wte.weight = model.lm_head.weight
    model.to(terms.device)
    gate.built(facts_of(model, terms, vocab_size))
    compiled = torch.compile(model) if terms.compile else model

    def loss_of(inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        with autocast(terms):
            logits_BTV = compiled(inputs_BT)
        # As there: the model alone is compiled, Fabric turns its output into fp32, the loss is taken in chunks.
        loss: Tensor = chunked_cross_entropy(logits_BTV.float(), targets_BT)
        return loss

    train_plainly(model, loss_of, steps, terms, gate)
