import math
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from minigpt.data.loader import Batch
from minigpt.errors import MiniGPTError
from minigpt.evaluation.loss import Evaluation, evaluate
from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.loss import IGNORE_INDEX

VOCAB_SIZE = 64
CONFIG = ModelConfig(num_layers=1, hidden_size=16, num_heads=2, context_length=8, dropout=0.5)


def batches(*ignored: int, seed: int = 0) -> list[Batch]:
    """One batch of 2 x 8 for each number, that many of its targets left out."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for count in ignored:
        inputs_BT = torch.randint(0, VOCAB_SIZE, (2, 8), generator=generator)
        targets_BT = torch.randint(0, VOCAB_SIZE, (2, 8), generator=generator)
        targets_BT.view(-1)[:count] = IGNORE_INDEX
        found.append(Batch(inputs_BT, targets_BT, 0, 0, (0, 1)))
    return found


def measured(model: GPT, data: list[Batch], **changes: object) -> Evaluation | None:
    options = {
        "bytes_per_token": 4.0,
        "autocast": nullcontext,
        "device": torch.device("cpu"),
        "reduce_sum": lambda value: value,
        "should_stop": lambda: False,
        **changes,
    }
    return evaluate(model, data, **options)  # type: ignore[arg-type]


def test_uniform_model_has_ln_vocabulary_as_its_loss() -> None:
    model = GPT(CONFIG, VOCAB_SIZE)
    with torch.no_grad():
        model.embedding.weight.zero_()
    result = measured(model, batches(0, 3))
    assert result is not None
    assert result.loss == pytest.approx(math.log(64))
    assert result.perplexity == pytest.approx(64.0)
    # log2 of 64 is 6 bits a token of 4 bytes.
    assert result.bits_per_byte == pytest.approx(1.5)
    assert (result.tokens, result.bytes) == (29, 116)


def test_loss_weighs_tokens_and_not_batches() -> None:
    model = GPT(CONFIG, VOCAB_SIZE).eval()
    data = batches(0, 15)
    with torch.no_grad():
        total = sum(model(batch.inputs_BT, batch.targets_BT).total.item() for batch in data)
    result = measured(model, data)
    assert result is not None
    assert result.loss == pytest.approx(total / 17, rel=1e-6)


def test_ranks_add_up_to_the_whole() -> None:
    model = GPT(CONFIG, VOCAB_SIZE)
    data = batches(0, 4, 9)
    shares: list[Tensor] = []

    def remember(value: Tensor) -> Tensor:
        shares.append(value)
        return value

    measured(model, data[:2], reduce_sum=remember)
    result = measured(model, data[2:], reduce_sum=lambda value: value + shares[0])
    whole = measured(model, data)
    assert result is not None
    assert whole is not None
    assert result.tokens == whole.tokens
    assert result.loss == pytest.approx(whole.loss, rel=1e-9)


def test_evaluation_is_none_on_every_rank_when_one_is_told_to_stop() -> None:
    model = GPT(CONFIG, VOCAB_SIZE).train()
    shares: list[Tensor] = []

    def remember(value: Tensor) -> Tensor:
        shares.append(value)
        return value

    assert measured(model, batches(0, 0), should_stop=lambda: True, reduce_sum=remember) is None
    assert measured(model, batches(0, 0), reduce_sum=lambda value: value + shares[0]) is None
    assert model.training


def test_evaluating_touches_neither_the_generators_nor_the_model() -> None:
    model = GPT(CONFIG, VOCAB_SIZE).train()
    before = torch.random.get_rng_state()
    first, second = measured(model, batches(0)), measured(model, batches(0))
    assert first == second
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_z_loss_is_not_part_of_the_reported_loss() -> None:
    torch.manual_seed(0)
    plain = GPT(CONFIG, VOCAB_SIZE)
    weighted = GPT(CONFIG.model_copy(update={"z_loss_weight": 1.0}), VOCAB_SIZE)
    weighted.load_state_dict(plain.state_dict())
    assert measured(plain, batches(0)) == measured(weighted, batches(0))


def test_perplexity_is_infinite_when_the_loss_is_beyond_floats() -> None:
    model = GPT(CONFIG, VOCAB_SIZE)
    with torch.no_grad():
        model.embedding.weight.normal_(0, 1e4, generator=torch.Generator().manual_seed(0))
    result = measured(model, batches(0))
    assert result is not None
    assert result.loss > 1000
    assert math.isinf(result.perplexity)


def test_broken_model_evaluates_to_nan() -> None:
    model = GPT(CONFIG, VOCAB_SIZE)
    with torch.no_grad():
        model.embedding.weight.fill_(float("nan"))
    result = measured(model, batches(0))
    assert result is not None
    assert math.isnan(result.loss)
    assert math.isnan(result.perplexity)


def test_batches_without_a_target_are_refused() -> None:
    with pytest.raises(MiniGPTError, match="no token to predict"):
        measured(GPT(CONFIG, VOCAB_SIZE), batches(16))
