"""The Llama decoder: rotary positions, grouped-query attention, SwiGLU, RMSNorm (Touvron et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.models.cache import Cache, LayerCache
from kindling_trainer.models.layers import Attention, Rotary


class Llama(nn.Module):
    """tokens [B, T] → logits [B, T, V], in the dtype of the weights; V is the padded vocabulary."""

    def __init__(self, shape: ModelShape, vocab_size: int) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(vocab_size, shape.width)
        self.rotary = Rotary(shape)
        self.layers = nn.ModuleList(LlamaBlock(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.head = nn.Linear(shape.width, vocab_size, bias=False)
        self.value: nn.Module | None = None
        """A `ValueHead`, where the model is one that scores."""
        self.tie()

    def forward(
        self,
        tokens: Tensor,
        cache: Cache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        score: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """With a cache, `tokens` continue what is in it, and are added to it.

        `positions` [1 or B, T] are 0 to T - 1 unless they are given, and `mask` [B, 1, T, S] says what each sees where
        that is not all before it. With `score`, the value head's numbers [B, T] come with the logits.
        """
        if cache is not None:
            positions, mask = cache.extend(tokens), cache.mask
        rotation = self.rotary(slice(tokens.shape[1]) if positions is None else positions)
        x = self.embedding(tokens)  # [B, T, W]
        for index, layer in enumerate(self.layers):
            x = layer(x, rotation, cache.layers[index] if cache else None, mask)
        x = self.norm(x)
        if not score:
            return self.head(x)
        assert self.value is not None
        return self.head(x), self.value(x)

    def tie(self) -> None:
        """Makes the head the embedding where the shape says so; to be called when either was replaced."""
        if self.shape.tied_embeddings:
            self.head.weight = self.embedding.weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.tie()  # `to_empty` gives each module a parameter of its own
        return self


class LlamaBlock(nn.Module):
    """Attention, then feed-forward; each reads a normalised copy of the stream and adds to it."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.attention = Attention(shape)
        self.feed_forward_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.feed_forward = SwiGLU(shape)

    def forward(
        self, x: Tensor, rotation: Tensor, cache: LayerCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """x [B, T, W] → [B, T, W]."""
        x = x + self.attention(self.attention_norm(x), rotation, cache, mask=mask)
        return x + self.feed_forward(self.feed_forward_norm(x))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)) (Shazeer 2020, GLU Variants Improve Transformer, §2)."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.width, shape.ffn_width, bias=False)
        self.up = nn.Linear(shape.width, shape.ffn_width, bias=False)
        self.down = nn.Linear(shape.ffn_width, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, W] → [B, T, W]."""
        return self.down(F.silu(self.gate(x)) * self.up(x))
