import math

import pytest
import torch
from torch import Tensor

from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize
from minigpt.model.recompute import Recompute

VOCAB_SIZE = 64
SHAPES = {
    "plain": ModelConfig(num_layers=2, hidden_size=32, num_heads=4, context_length=16),
    "grouped": ModelConfig(num_layers=2, hidden_size=32, num_heads=4, num_kv_heads=2, context_length=16),
    "one key head": ModelConfig(num_layers=1, hidden_size=32, num_heads=4, num_kv_heads=1, context_length=16),
    "qk norm": ModelConfig(num_layers=2, hidden_size=32, num_heads=2, qk_norm=True, context_length=16),
    "post": ModelConfig(num_layers=2, hidden_size=32, num_heads=4, norm_position="post", context_length=16),
    "untied": ModelConfig(num_layers=2, hidden_size=32, num_heads=4, tie_embeddings=False, context_length=16),
    "soft cap": ModelConfig(num_layers=2, hidden_size=32, num_heads=4, logit_softcap=2.0, context_length=16),
    "value embeddings": ModelConfig(
        num_layers=3, hidden_size=32, num_heads=4, num_kv_heads=2, value_embedding_layers=2, context_length=16
    ),
}


def lively_model(config: ModelConfig, seed: int = 0) -> GPT:
    """A model whose every parameter matters: large weights, norm scales that differ from 1."""
    model = GPT(config, VOCAB_SIZE)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if "norm" in name else 0.2 * noise)
    return model.eval()


def tokens(batch_size: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCAB_SIZE, (batch_size, length), generator=torch.Generator().manual_seed(seed))


def reference_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * scale


def reference_rotated(x: Tensor, position: int, theta: float) -> Tensor:
    """One head's vector, each pair (i, i + H/2) as a complex number turned by position / theta^(2i/H)."""
    half = x.shape[-1] // 2
    turned = torch.empty_like(x)
    for i in range(half):
        angle = position / theta ** (2 * i / x.shape[-1])
        turned[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        turned[i + half] = x[i] * math.sin(angle) + x[i + half] * math.cos(angle)
    return turned


def reference_added(w: dict[str, Tensor], layer: int, ids: list[int], config: ModelConfig) -> Tensor:
    """What the tokens add to the values of a layer, key/value head by head."""
    added = torch.zeros(len(ids), config.resolved_num_kv_heads * config.head_dim, dtype=torch.float64)
    for head in range(config.resolved_num_kv_heads if f"value_embeddings.{layer}.gate" in w else 0):
        own = slice(head * config.head_dim, (head + 1) * config.head_dim)
        for t, token in enumerate(ids):
            row = w[f"value_embeddings.{layer}.table.weight"][token, own]
            added[t, own] = w[f"value_embeddings.{layer}.gate"][head] * row
    return added


def reference_attention(
    w: dict[str, Tensor], layer: str, x_TD: Tensor, added: Tensor, config: ModelConfig
) -> Tensor:
    """Head by head and query by query, key/value heads shared by repetition."""
    T, H = x_TD.shape[0], config.head_dim
    q, k, v = (x_TD @ w[f"{layer}.attention.{name}.weight"].T for name in ("query", "key", "value"))
    v = v + added
    group = config.num_heads // config.resolved_num_kv_heads
    out = torch.zeros(T, config.hidden_size, dtype=x_TD.dtype)
    for head in range(config.num_heads):
        own, shared = slice(head * H, (head + 1) * H), slice(head // group * H, (head // group + 1) * H)
        queries, keys = q[:, own], k[:, shared]
        if config.qk_norm:
            queries = reference_norm(queries, w[f"{layer}.attention.query_norm.weight"], config.rms_norm_eps)
            keys = reference_norm(keys, w[f"{layer}.attention.key_norm.weight"], config.rms_norm_eps)
        queries = torch.stack([reference_rotated(queries[t], t, config.rope_theta) for t in range(T)])
        keys = torch.stack([reference_rotated(keys[t], t, config.rope_theta) for t in range(T)])
        for t in range(T):
            weights = (queries[t] @ keys[: t + 1].T / math.sqrt(H)).softmax(-1)
            out[t, own] = weights @ v[: t + 1, shared]
    return out @ w[f"{layer}.attention.output.weight"].T


def reference_mlp(w: dict[str, Tensor], layer: str, x_TD: Tensor) -> Tensor:
    gate = x_TD @ w[f"{layer}.mlp.gate.weight"].T
    return (gate * torch.sigmoid(gate) * (x_TD @ w[f"{layer}.mlp.up.weight"].T)) @ w[
        f"{layer}.mlp.down.weight"
    ].T


def reference_logits(model: GPT, ids: list[int]) -> Tensor:
    """The forward pass in plain arithmetic, in fp64."""
    config, eps = model.config, model.config.rms_norm_eps
    w = {name: value.double() for name, value in model.state_dict().items()}
    x_TD = w["embedding.weight"][ids]
    for index in range(config.num_layers):
        layer = f"blocks.{index}"
        first, second = w[f"{layer}.attention_norm.weight"], w[f"{layer}.mlp_norm.weight"]
        added = reference_added(w, index, ids, config)
        if config.norm_position == "pre":
            x_TD = x_TD + reference_attention(w, layer, reference_norm(x_TD, first, eps), added, config)
            x_TD = x_TD + reference_mlp(w, layer, reference_norm(x_TD, second, eps))
        else:
            x_TD = reference_norm(x_TD + reference_attention(w, layer, x_TD, added, config), first, eps)
            x_TD = reference_norm(x_TD + reference_mlp(w, layer, x_TD), second, eps)
    if config.norm_position == "pre":
        x_TD = reference_norm(x_TD, w["norm.weight"], eps)
    logits_TV: Tensor = x_TD @ w["embedding.weight" if config.tie_embeddings else "head.weight"].T
    cap = config.logit_softcap
    return logits_TV if cap is None else cap * torch.tanh(logits_TV / cap)


@pytest.mark.parametrize("name", SHAPES)
def test_logits_equal_the_plain_reference(name: str) -> None:
    model = lively_model(SHAPES[name])
    ids = tokens(2, 11)
    with torch.no_grad():
        logits_BTV = model(ids)
    for row in range(2):
        expected = reference_logits(model, ids[row].tolist())
        torch.testing.assert_close(logits_BTV[row].double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_logits_depend_on_no_later_token(name: str) -> None:
    model = lively_model(SHAPES[name])
    ids = tokens(1, 16)
    with torch.no_grad():
        before = model(ids)
        for changed_at in (1, 7, 15):
            other = ids.clone()
            other[0, changed_at] = (other[0, changed_at] + 1) % VOCAB_SIZE
            after = model(other)
            torch.testing.assert_close(after[:, :changed_at], before[:, :changed_at], rtol=0, atol=1e-6)
            assert not torch.allclose(after[:, changed_at:], before[:, changed_at:], atol=1e-3)


def test_logits_equal_llama_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    config = SHAPES["grouped"]
    model = lively_model(config)
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=config.hidden_size,
            intermediate_size=config.resolved_intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            max_position_embeddings=config.context_length,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=True,
        )
    ).eval()
    renamed = {"lm_head.weight": model.embedding.weight}
    words = {
        "embedding": "model.embed_tokens",
        "blocks": "model.layers",
        "attention_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
        "attention": "self_attn",
        "query": "q_proj",
        "key": "k_proj",
        "value": "v_proj",
        "output": "o_proj",
        "gate": "gate_proj",
        "up": "up_proj",
        "down": "down_proj",
    }
    for name, value in model.state_dict().items():
        llama_name = (
            "model.norm.weight"
            if name == "norm.weight"
            else ".".join(words.get(w, w) for w in name.split("."))
        )
        renamed[llama_name] = value
    llama.load_state_dict(renamed)
    ids = tokens(2, 16)
    with torch.no_grad():
        torch.testing.assert_close(model(ids), llama(ids).logits, rtol=1e-4, atol=1e-4)


def test_forward_refuses_more_tokens_than_the_context_holds() -> None:
    with pytest.raises(ValueError, match="17 tokens do not fit context_length = 16"):
        GPT(SHAPES["plain"], VOCAB_SIZE)(tokens(1, 17))


def test_forward_runs_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = GPT(SHAPES["grouped"], VOCAB_SIZE)
        ids = torch.zeros(2, 16, dtype=torch.int64)
        assert model(ids).shape == (2, 16, VOCAB_SIZE)
        assert model(ids, ids).total.shape == ()


def test_dropout_acts_only_in_training() -> None:
    config = SHAPES["plain"].model_copy(update={"dropout": 0.5})
    model = lively_model(config)
    ids = tokens(1, 16)
    with torch.no_grad():
        without = lively_model(SHAPES["plain"])(ids)
        torch.testing.assert_close(model.eval()(ids), without, rtol=0, atol=0)
        torch.manual_seed(0)
        assert not torch.allclose(model.train()(ids), without)


@pytest.mark.parametrize(("name", "dropout"), [("qk norm", 0.0), ("qk norm", 0.3), ("value embeddings", 0.3)])
def test_recomputed_blocks_give_the_same_gradients(name: str, dropout: float) -> None:
    config = SHAPES[name].model_copy(update={"dropout": dropout})
    ids = tokens(2, 16)
    gradients = []
    kinds: tuple[Recompute, ...] = ("off", "selective", "full")
    for recompute in kinds:
        model = lively_model(config).train()
        model.recompute_blocks = recompute
        torch.manual_seed(5)
        model(ids, ids).total.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == dict(model.named_parameters()).keys()
    for name, gradient in gradients[0].items():
        for again in gradients[1:]:
            torch.testing.assert_close(again[name], gradient, rtol=0, atol=0)


@pytest.mark.parametrize("name", SHAPES)
def test_autocast_keeps_the_stream_and_the_loss_in_fp32(name: str) -> None:
    model = lively_model(SHAPES[name])
    ids = tokens(2, 16)
    exact = model(ids, ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums = model(ids, ids)
    assert sums.total.dtype == sums.cross_entropy.dtype == torch.float32
    assert sums.total.item() == pytest.approx(exact.total.item(), rel=0.02)


def test_tied_embedding_gets_the_gradient_of_both_its_uses() -> None:
    config = SHAPES["plain"]
    tied = lively_model(config)
    untied = GPT(config.model_copy(update={"tie_embeddings": False}), VOCAB_SIZE)
    untied.load_state_dict({**tied.state_dict(), "head.weight": tied.embedding.weight})
    ids = tokens(2, 16)
    tied(ids, ids).total.backward()
    untied(ids, ids).total.backward()
    assert untied.head is not None
    assert untied.embedding.weight.grad is not None
    assert untied.head.weight.grad is not None
    both = untied.embedding.weight.grad + untied.head.weight.grad
    torch.testing.assert_close(tied.embedding.weight.grad, both, rtol=1e-4, atol=1e-4)


def test_loss_is_the_mean_of_pytorchs_own_after_division() -> None:
    model = GPT(SHAPES["plain"], VOCAB_SIZE)
    initialize(model, seed=0)
    ids = tokens(2, 16)
    expected = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
    assert (model(ids, ids).total / ids.numel()).item() == pytest.approx(expected.item(), rel=1e-6)
