from collections.abc import Iterator
from itertools import islice

import pytest
import torch

from minigpt.errors import MiniGPTError
from minigpt.generation.generate import generate
from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT

VOCAB_SIZE = 60
SHAPES: dict[str, dict[str, object]] = {
    "plain": {},
    "grouped": {"num_kv_heads": 2},
    "qk norm": {"qk_norm": True},
    "post": {"norm_position": "post"},
    "value embeddings": {"value_embedding_layers": 1, "num_kv_heads": 2},
    "odd context": {"context_length": 7},
    "shortest context": {"context_length": 2},
}


def lively_model(**changes: object) -> GPT:
    """Large weights: the likeliest token changes from position to position."""
    config = ModelConfig.model_validate(
        {"num_layers": 2, "hidden_size": 32, "num_heads": 4, "context_length": 8, "tie_embeddings": False}
        | changes
    )
    model = GPT(config, 64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + (parameter.dim() == 1))
    return model


def greedy_by_full_forwards(model: GPT, prompt_ids: list[int], count: int) -> list[int]:
    """Without a cache: each token from a forward over the whole window, which slides as documented."""
    context_length = model.config.context_length
    ids, start = list(prompt_ids), max(0, len(prompt_ids) - context_length)
    for _ in range(count):
        if len(ids) - start > context_length:
            start = len(ids) - max(1, context_length // 2)
        with torch.no_grad():
            logits = model.eval()(torch.tensor([ids[start:]]))
        ids.append(int(logits[0, -1, :VOCAB_SIZE].argmax()))
    return ids[len(prompt_ids) :]


def draw(model: GPT, prompt_ids: list[int], count: int = 12, **options: object) -> list[int]:
    return list(stream(model, prompt_ids, count, **options))


def stream(model: GPT, prompt_ids: list[int], count: int = 12, **options: object) -> Iterator[int]:
    chosen = {"seed": 0, "stop_id": None, "vocab_size": VOCAB_SIZE, **options}
    return generate(model, prompt_ids, max_new_tokens=count, **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("prompt_length", [1, 5, 8, 13])
def test_greedy_tokens_equal_the_argmax_of_full_forwards_when_the_window_slides(
    name: str, prompt_length: int
) -> None:
    model = lively_model(**SHAPES[name])
    prompt_ids = [(7 * i + 3) % VOCAB_SIZE for i in range(prompt_length)]
    drawn = draw(model, prompt_ids, 25, temperature=0.0)
    assert drawn == greedy_by_full_forwards(model, prompt_ids, 25)
    assert len(set(drawn)) > 3


def test_same_seed_gives_the_same_tokens_and_another_seed_others() -> None:
    model = lively_model()
    first, second, other = (draw(model, [1], 20, temperature=1.0, seed=seed) for seed in (3, 3, 4))
    assert first == second != other


def test_generating_leaves_the_global_generator_and_the_training_flag_alone() -> None:
    model = lively_model().train()
    before = torch.random.get_rng_state()
    draw(model, [1])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training
    draw(model.eval(), [1])
    assert not model.training


def test_training_flag_returns_when_the_iterator_is_closed_early() -> None:
    model = lively_model().train()
    tokens = stream(model, [1])
    list(islice(tokens, 2))
    assert not model.training
    tokens.close()  # type: ignore[attr-defined]
    assert model.training


def test_callers_code_between_two_tokens_is_not_in_inference_mode() -> None:
    tokens = stream(lively_model(), [1])
    next(tokens)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


def test_generation_ends_before_the_stop_token() -> None:
    model = lively_model()
    drawn = draw(model, [1], 12, temperature=0.0)
    stop_id = drawn[5]
    assert draw(model, [1], 12, temperature=0.0, stop_id=stop_id) == drawn[: drawn.index(stop_id)]


def test_ids_beyond_the_tokenizers_are_never_drawn() -> None:
    model = lively_model()
    with torch.no_grad():
        assert model.head is not None
        model.head.weight[5:] *= 50
    assert max(draw(model, [1], 50, temperature=5.0, top_k=None, vocab_size=5)) <= 4


def test_dropout_is_off_while_generating() -> None:
    model = lively_model(dropout=0.9).train()
    assert draw(model, [1], temperature=0.0) == draw(lively_model(), [1], temperature=0.0)


@pytest.mark.parametrize(
    ("prompt_ids", "options", "message"),
    [
        ([], {}, "the prompt has no token"),
        ([60], {}, "outside 0..59"),
        ([1], {"temperature": -1.0}, "temperature = -1.0"),
        ([1], {"temperature": float("nan")}, "temperature = nan"),
        ([1], {"top_k": 0}, "top_k = 0"),
        ([1], {"top_p": 0.0}, "top_p = 0.0"),
        ([1], {"top_p": 1.5}, "top_p = 1.5"),
    ],
)
def test_wrong_inputs_are_refused_before_the_first_token(
    prompt_ids: list[int], options: dict[str, object], message: str
) -> None:
    with pytest.raises(MiniGPTError, match=message):
        stream(lively_model(), prompt_ids, 12, **options)


def test_broken_weights_are_named_when_the_logits_are_not_finite() -> None:
    model = lively_model()
    with torch.no_grad():
        model.embedding.weight.fill_(float("nan"))
    with pytest.raises(MiniGPTError, match="not finite"):
        draw(model, [1])
