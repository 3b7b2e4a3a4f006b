"""Tokens from a model, one at a time, through the key/value cache."""

# B batch (always 1), T time, V vocabulary

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from minigpt.errors import MiniGPTError
from minigpt.generation.sample import check_sampling, sample_token
from minigpt.model.cache import KVCache
from minigpt.model.gpt import GPT


def generate(
    model: GPT,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float | None = None,
    seed: int,
    stop_id: int | None,
    vocab_size: int,
) -> Iterator[int]:
    """Up to `max_new_tokens` new token ids, each as soon as it is known; ends before `stop_id`.

    `vocab_size` is the tokenizer's: the model's padded ids are never drawn. A prompt longer than the context
    counts with its last context_length tokens. When the context is full, the model goes on from the last half
    of it: the window slides by half a context at a time, not by one token, so that the cache pays. Draws from
    a generator of its own (on the CPU: the same seed gives the same choices everywhere); the model's training
    flag returns to what it was when the iterator ends or is closed.

    Raises:
        MiniGPTError: no prompt token or one outside the vocabulary, an option out of range, broken logits.
    """
    check_sampling(temperature, top_k, top_p)
    if not prompt_ids:
        raise MiniGPTError(
            "the prompt has no token to continue; start from the tokenizer's end-of-text token"
        )
    if min(prompt_ids) < 0 or max(prompt_ids) >= vocab_size:
        raise MiniGPTError(
            f"a prompt token is outside 0..{vocab_size - 1}: the prompt was encoded by another tokenizer"
        )
    return _generate(
        model, list(prompt_ids), max_new_tokens, temperature, top_k, top_p, seed, stop_id, vocab_size
    )


def _generate(
    model: GPT,
    ids: list[int],
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    stop_id: int | None,
    vocab_size: int,
) -> Iterator[int]:
    generator = torch.Generator().manual_seed(seed)
    context_length = model.config.context_length
    was_training = model.training
    model.eval()
    try:
        cache, fresh = _empty_cache(model), ids[-context_length:]
        for _ in range(max_new_tokens):
            if cache.length + len(fresh) > context_length:
                cache, fresh = _empty_cache(model), ids[-max(1, context_length // 2) :]
            logits_V = _last_logits(model, fresh, cache)[:vocab_size]
            token = sample_token(
                logits_V, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator
            )
            if token == stop_id:
                return
            ids.append(token)
            fresh = [token]
            yield token
    finally:
        model.train(was_training)


# Inference mode stands around each forward and not around the loop: between two tokens the caller's code
# runs, and it would find itself in inference mode.
@torch.inference_mode()
def _last_logits(model: GPT, fresh_ids: list[int], cache: KVCache) -> Tensor:
    """Logits (V,) of the last of `fresh_ids`, in fp32 on the CPU; the cache takes them in."""
    inputs_BT = torch.tensor([fresh_ids], dtype=torch.int64, device=model.embedding.weight.device)
    logits_BTV: Tensor = model(inputs_BT, cache=cache)
    return logits_BTV[0, -1].float().cpu()


@torch.inference_mode()
def _empty_cache(model: GPT) -> KVCache:
    weight = model.embedding.weight
    return KVCache(model.config, 1, model.config.context_length, weight.device, weight.dtype)
