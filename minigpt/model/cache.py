"""Keys and values of the tokens seen so far, so that generating a token costs one position and not the whole text."""

import torch
from torch import Tensor

from minigpt.model.config import ModelConfig


class LayerCache:
    """Keys and values of one layer, each (B, K, max_length, H)."""

    def __init__(self, shape: tuple[int, int, int, int], device: torch.device, dtype: torch.dtype) -> None:
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    def append(self, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new positions; all keys and values up to and with them."""
        end = self.length + k_BKTH.shape[2]
        if end > self.keys.shape[2]:
            raise ValueError(f"the cache holds {self.keys.shape[2]} positions, {end} were asked for")
        self.keys[:, :, self.length : end] = k_BKTH
        self.values[:, :, self.length : end] = v_BKTH
        self.length = end
        return self.keys[:, :, :end].to(v_BKTH.dtype), self.values[:, :, :end].to(v_BKTH.dtype)


class KVCache:
    """The layers' caches of one batch; the model's forward advances them."""

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        max_length: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (batch_size, config.resolved_num_kv_heads, max_length, config.head_dim)
        self.layers = [LayerCache(shape, device, dtype) for _ in range(config.num_layers)]

    @property
    def length(self) -> int:
        """Positions held so far."""
        return self.layers[0].length
