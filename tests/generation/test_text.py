import torch

from minigpt.data.tokenizer import bytes_tokenizer
from minigpt.generation.text import stream_text
from minigpt.model.config import ModelConfig
from minigpt.model.count import padded_vocab_size
from minigpt.model.gpt import GPT


def repeating_model(text: bytes) -> GPT:
    """A model that writes the bytes of `text` in turn, for ever: no byte may stand in it twice."""
    tokenizer = bytes_tokenizer()
    size = padded_vocab_size(tokenizer.vocab_size)
    config = ModelConfig(
        num_layers=1,
        hidden_size=size,
        num_heads=2,
        context_length=16,
        tie_embeddings=False,
        intermediate_size=8,
    )
    model = GPT(config, size)
    cycle = [*text, tokenizer.end_of_text_id]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        model.embedding.weight.copy_(torch.eye(size))
        assert model.head is not None
        for token, following in zip(cycle, cycle[1:] + cycle[:1], strict=True):
            model.head.weight[following, token] = 1.0
    return model


def test_pieces_are_whole_characters() -> None:
    model = repeating_model("aé€x".encode())
    pieces = list(stream_text(model, bytes_tokenizer(), "a", max_new_tokens=6, temperature=0.0))
    assert pieces == ["é", "€", "x"]


def test_text_ends_at_the_end_of_text_token() -> None:
    model = repeating_model(b"abc")
    assert "".join(stream_text(model, bytes_tokenizer(), "a", max_new_tokens=50, temperature=0.0)) == "bc"


def test_half_a_character_at_the_end_is_left_out() -> None:
    model = repeating_model("aé€x".encode())
    assert "".join(stream_text(model, bytes_tokenizer(), "a", max_new_tokens=4, temperature=0.0)) == "é"


def test_empty_prompt_starts_a_new_document() -> None:
    model = repeating_model(b"abc")
    assert "".join(stream_text(model, bytes_tokenizer(), "", max_new_tokens=50, temperature=0.0)) == "abc"
