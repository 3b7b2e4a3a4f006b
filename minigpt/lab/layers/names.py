"""What a weight's name says of it: its layer, and which of a transformer's matrices it is.

The names are MiniGPT's, those of Llama and GPT-2 in transformers, of nanoGPT, GPT-NeoX, BERT and torch's own layers.
"""

import re
from typing import NamedTuple

EMBEDDING, POSITION, HEAD, NORM, OTHER = "embedding", "positions", "head", "norm", "other"

_RULES = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"\b(q_?norm|query_norm|q_layernorm)\b", "query norm"),
        (r"\b(k_?norm|key_norm|k_layernorm)\b", "key norm"),
        (
            r"\b(attention_norm|attn_norm|input_layernorm|ln_?1|norm_?1|attention\.output\.layernorm)\b",
            "attention norm",
        ),
        (r"\b(mlp_norm|ffn_norm|post_attention_layernorm|ln_?2|norm_?2|output\.layernorm)\b", "MLP norm"),
        (r"norm|\bln(_\w+)?\b", NORM),
        (r"\b(c_attn|qkv\w*|wqkv|query_key_value|in_proj)\b", "q + k + v"),
        (r"\b(q|q_proj|query|wq|to_q|q_lin)\b", "q"),
        (r"\b(k|k_proj|key|wk|to_k|k_lin)\b", "k"),
        (r"\b(v|v_proj|value|wv|to_v|v_lin)\b", "v"),
        (
            r"\b(o_proj|out_proj|wo|to_out|out_lin)\b|\b(attn|attention)\.(c_proj|dense|output|proj)\b",
            "output",
        ),
        (r"\b(gate_up_proj)\b", "gate + up"),
        (r"\b(gate|gate_proj|w1)\b", "gate"),
        (r"\b(up|up_proj|w3|c_fc|fc_?1|fc_in|linear1|dense_h_to_4h|intermediate\.dense|lin1)\b", "up"),
        (r"\b(down|down_proj|w2|c_proj|fc_?2|fc_out|linear2|dense_4h_to_h|output\.dense|lin2)\b", "down"),
        (r"\b(wpe|embed_positions|position\w*|pos_\w+)\b", POSITION),
        (
            r"\b(embedding|embeddings|embed\w*|wte|tok_embeddings|word_embeddings|token_embedding\w*)\b",
            EMBEDDING,
        ),
        (r"\b(head|lm_head|unembed\w*|embed_out)\b|^output$", HEAD),
    )
)
"""The first that fits decides."""
KINDS = (
    EMBEDDING, POSITION, "attention norm", "q", "k", "v", "q + k + v", "query norm", "key norm", "output", "MLP norm",
    "gate", "gate + up", "up", "down", NORM, HEAD, OTHER,
)  # fmt: skip
"""In a forward pass's order."""
_LAYER_WORD = re.compile(r"(?:layer|block)s?_?(\d+)")


class Place(NamedTuple):
    """Where a weight stands in its model."""

    layer: int | None
    """None: outside of the layers."""
    kind: str
    """One of KINDS; of a bias the same with " bias"."""


def place_of(name: str) -> Place:
    """What `name`, such as blocks.3.attention.query.weight, says; OTHER where it says nothing known."""
    parts = name.lower().replace("/", ".").split(".")
    layer, rest = _layer_of(parts)
    bias = parts[-1].endswith("bias")
    words = [
        part.removesuffix("_weight").removesuffix("_bias") for part in rest if part not in ("weight", "bias")
    ]
    text = ".".join(words)
    kind = next((kind for pattern, kind in _RULES if pattern.search(text)), OTHER)
    return Place(layer, f"{kind} bias" if bias else kind)


def _layer_of(parts: list[str]) -> tuple[int | None, list[str]]:
    """The first part that is a number, or ends a word for layer; and what comes after it, or all."""
    for at, part in enumerate(parts):
        if part.isdecimal():
            return int(part), parts[at + 1 :]
        if (match := _LAYER_WORD.fullmatch(part)) is not None:
            return int(match.group(1)), parts[at + 1 :]
    return None, parts


def kind_order(kind: str) -> tuple[int, str]:
    """For sorting: as in KINDS, a bias after all weights."""
    plain = kind.removesuffix(" bias")
    known = KINDS.index(plain) if plain in KINDS else len(KINDS)
    return known + (len(KINDS) + 1) * kind.endswith(" bias"), kind
