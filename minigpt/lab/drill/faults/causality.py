"""A language model that can look up what it should predict."""

# B batch, T time, S time (keys), D hidden, N heads, K key/value heads (as many), H head_dim

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.lab.drill.scenario import Fault
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.training import Training
from minigpt.model.attention import Attention
from minigpt.model.cache import LayerCache
from minigpt.model.rotary import apply_rotary


@dataclass(frozen=True, kw_only=True)
class NoCausalMask(Fault):
    """Attention sees the future, so the next token can be read off."""

    layers: int | None = None
    """How many of the first layers (None: all)."""
    tokens_ahead: int | None = None
    """How far (None: as far as it likes): 1 is a mask off by one."""

    def before_step(self, training: Training) -> None:
        if training.step == self.onset:
            for index in range(self.setting.model.num_layers if self.layers is None else self.layers):
                see_ahead(training.block(index).attention, self.tokens_ahead)


def see_ahead(attention: Attention, tokens_ahead: int | None = None) -> None:
    """Lets attention see so many tokens that come later (None: all)."""

    def forward(
        x_BTD: Tensor,
        cos_TH: Tensor,
        sin_TH: Tensor,
        added_BTKH: Tensor | None,
        cache: LayerCache | None,
    ) -> Tensor:
        B, T, _ = x_BTD.shape
        heads = (B, T, attention.num_heads, attention.head_dim)
        q_BNTH = apply_rotary(attention.query(x_BTD).view(heads).transpose(1, 2), cos_TH, sin_TH)
        k_BNTH = apply_rotary(attention.key(x_BTD).view(heads).transpose(1, 2), cos_TH, sin_TH)
        v_BNTH = attention.value(x_BTD).view(heads).transpose(1, 2)
        mask_TS = torch.ones(T, T, dtype=torch.bool).tril(T if tokens_ahead is None else tokens_ahead)
        q_BNTH, k_BNTH = q_BNTH.to(v_BNTH.dtype), k_BNTH.to(v_BNTH.dtype)
        out_BNTH = F.scaled_dot_product_attention(q_BNTH, k_BNTH, v_BNTH, attn_mask=mask_TS)
        seen: Tensor = attention.output(out_BNTH.transpose(1, 2).reshape(B, T, -1))
        return seen

    attention.forward = forward  # type: ignore[method-assign]


LABELS = ("future_leak", "sees_the_future")
SYMPTOMS = ("loss_collapse", "label_leak")

FAULTS: list[Fault] = [
    NoCausalMask(
        name="no_causal_mask", setting=Setting(steps=320), slow=True, labels=LABELS, symptoms=SYMPTOMS
    ),
    NoCausalMask(name="no_causal_mask_from_start", onset=1, labels=LABELS, symptoms=SYMPTOMS),
    NoCausalMask(
        name="mask_off_by_one_in_one_layer",
        onset=1,
        layers=1,
        tokens_ahead=1,
        setting=Setting(precision="bf16", shows_batch=False, optimizer="muon"),
        labels=LABELS,
        symptoms=SYMPTOMS,
    ),
]
