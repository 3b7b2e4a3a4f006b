"""One transformer block: attention and SwiGLU, each with its norm and residual."""

# B batch, T time, D hidden, K key/value heads, H head_dim, F intermediate

from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.model.attention import Attention
from minigpt.model.cache import LayerCache
from minigpt.model.config import ModelConfig


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) * up(x))` (arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, intermediate = config.hidden_size, config.resolved_intermediate_size
        self.gate = nn.Linear(hidden, intermediate, bias=False)
        self.up = nn.Linear(hidden, intermediate, bias=False)
        self.down = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and SwiGLU with residuals; Pre-Norm (arXiv 2002.04745) or, for comparison, Post-Norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.attention_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = SwiGLU(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        cos_TH: Tensor,
        sin_TH: Tensor,
        added_BTKH: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        rest = cos_TH, sin_TH, added_BTKH, cache
        if self.pre_norm:
            x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), *rest))
            return x_BTD + self.dropout(self.mlp(self.mlp_norm(x_BTD)))  # type: ignore[no-any-return]
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, *rest)))
        return self.mlp_norm(x_BTD + self.dropout(self.mlp(x_BTD)))  # type: ignore[no-any-return]
