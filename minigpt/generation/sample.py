"""The next token from the last position's logits."""

# V vocabulary

import torch
from torch import Tensor

from minigpt.errors import MiniGPTError


def sample_token(
    logits_V: Tensor,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator,
) -> int:
    """One token id drawn from `logits_V` (on the CPU); temperature 0 takes the most likely one.

    top_k keeps the k most likely tokens, then top_p the fewest of those whose probability reaches top_p
    (nucleus sampling, arXiv 1904.09751).

    Raises:
        MiniGPTError: a logit is not a number, or all are -inf.
    """
    if not bool(torch.isfinite(logits_V.max())):
        raise MiniGPTError(
            "the model's logits are not finite: its weights are broken; generate from an earlier checkpoint"
        )
    if temperature == 0.0:
        return int(logits_V.argmax())
    scaled_V = logits_V / temperature
    if top_k is not None and top_k < scaled_V.numel():
        scaled_V, ids_V = scaled_V.topk(top_k)
    else:
        scaled_V, ids_V = scaled_V.sort(descending=True)
    probabilities_V = scaled_V.softmax(dim=-1)
    if top_p is not None and top_p < 1.0:
        # The mass *before* a token decides, so the token that crosses top_p stays and one always does.
        before_V = probabilities_V.cumsum(dim=-1) - probabilities_V
        probabilities_V = probabilities_V.masked_fill(before_V >= top_p, 0.0)
    choice = torch.multinomial(probabilities_V, 1, generator=generator)
    return int(ids_V[choice])


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Nothing, when the sampling options make sense.

    Raises:
        MiniGPTError: one of them is out of its range.
    """
    if not 0.0 <= temperature < float("inf"):
        raise MiniGPTError(
            f"temperature = {temperature} is not a finite number >= 0; 0 is greedy, 0.8 is usual"
        )
    if top_k is not None and top_k < 1:
        raise MiniGPTError(f"top_k = {top_k} keeps no token; use 1 or more, or leave it out")
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise MiniGPTError(f"top_p = {top_p} is not a probability above 0 and up to 1; 0.95 is usual")
