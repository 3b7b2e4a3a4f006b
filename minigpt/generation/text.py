"""Text from a model, streamed."""

from collections.abc import Iterator

from minigpt.data.tokenizer import StreamDecoder, Tokenizer
from minigpt.generation.generate import generate
from minigpt.model.gpt import GPT


def stream_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """The continuation of `prompt` (without it) in pieces, never half a UTF-8 character, to the end of text.

    An empty prompt starts a new document: from the end-of-text token, as in training.
    """
    ids = generate(
        model,
        tokenizer.encode(prompt) or [tokenizer.end_of_text_id],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop_id=tokenizer.end_of_text_id,
        vocab_size=tokenizer.vocab_size,
    )
    return _decoded(ids, StreamDecoder(tokenizer))


def _decoded(ids: Iterator[int], decoder: StreamDecoder) -> Iterator[str]:
    for token in ids:
        piece = decoder.push(token)
        if piece:
            yield piece
    # The last token may have left half a character behind: what stands before that half is text.
    rest = decoder.flush().rstrip("\ufffd")
    if rest:
        yield rest
