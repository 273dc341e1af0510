"""The key-value cache of generation: what earlier positions leave behind for later ones."""

from __future__ import annotations

import torch
from torch import Tensor

from kindling_api.v1alpha1.model import ModelShape


class LayerCache:
    """One layer's keys and values, in memory that is allocated once: [B, H, context, D] each, `length` of it filled."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values, self.length = keys, values, 0

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds key and value [B, H, T, D]; returns all so far [B, H, S, D]."""
        end = self.length + key.shape[2]
        assert end <= self.keys.shape[2], "the caller keeps within the context"
        self.keys[:, :, self.length : end] = key
        self.values[:, :, self.length : end] = value
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def clear(self) -> None:
        """Forgets everything; the memory stays."""
        self.length = 0


Cache = list[LayerCache]
"""One for each layer."""


def new_cache(shape: ModelShape, batch: int, *, device: torch.device, dtype: torch.dtype) -> Cache:
    """An empty cache for `batch` sequences of one common length."""
    size = (batch, shape.kv_heads, shape.context, shape.head_width)
    return [
        LayerCache(torch.empty(size, device=device, dtype=dtype), torch.empty(size, device=device, dtype=dtype))
        for _ in range(shape.layers)
    ]
