"""transformers' LlamaForCausalLM in the loop that Hugging Face's own examples write."""

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from minigpt.lab.bench.gate import Gate
from minigpt.lab.bench.peers.loop import autocast, facts_of, steps_of, train_plainly
from minigpt.lab.bench.shapes import Terms


def llama(terms: Terms, vocab_size: int) -> LlamaForCausalLM:
    """The shape as a Llama, with SDPA attention and first weights of transformers' own."""
    shape = terms.shape
    torch.manual_seed(terms.seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.model.resolved_intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        max_position_embeddings=shape.context_length,
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).to(terms.device)


def train_llama(terms: Terms, gate: Gate) -> None:
    """The Hugging Face loop: `model(input_ids, labels=...)`, the loss inside of the compiled model."""
    steps, vocab_size = steps_of(terms)
    model = llama(terms, vocab_size)
    gate.built(facts_of(model, terms, vocab_size))
    compiled = torch.compile(model) if terms.compile else model

    def loss_of(inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        # transformers shifts the labels itself, as its collator for language models expects.
        with autocast(terms):
            loss: Tensor = compiled(input_ids=inputs_BT, labels=inputs_BT).loss
        return loss

    train_plainly(model, loss_of, steps, terms, gate)
