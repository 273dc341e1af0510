"""The GPT-2 decoder: learned positions, multi-head attention, GELU, LayerNorm (Radford et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.models.kv_cache import KVCache, LayerCache
from kindling_trainer.models.layers import Attention, TiedHead, gelu


class GPT2(TiedHead):
    """tokens [B, T] → logits [B, T, V], in the dtype of the weights; V is the padded vocabulary."""

    def __init__(self, shape: ModelShape, vocab_size: int) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(vocab_size, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.dropout = nn.Dropout(shape.dropout)
        self.layers = nn.ModuleList(GPT2Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon, bias=shape.bias)
        self.head = nn.Linear(shape.width, vocab_size, bias=False)
        self.value: nn.Module | None = None
        """A `ValueHead`, where the model is one that scores."""
        self.tie()

    def forward(
        self,
        tokens: Tensor,
        cache: KVCache | None = None,
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
        elif positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        x = self.dropout(self.embedding(tokens) + self.positions(positions))  # [B, T, W] + [1 or B, T, W]
        for index, layer in enumerate(self.layers):
            x = layer(x, cache.layers[index] if cache else None, mask)
        x = self.norm(x)
        if not score:
            return self.head(x)
        assert self.value is not None
        return self.head(x), self.value(x)


class GPT2Block(nn.Module):
    """Attention, then feed-forward; each reads a normalised copy of the stream and adds to it."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon, bias=shape.bias)
        self.attention = Attention(shape)
        self.feed_forward_norm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon, bias=shape.bias)
        self.feed_forward = FeedForward(shape)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, cache: LayerCache | None = None, mask: Tensor | None = None) -> Tensor:
        """x [B, T, W] → [B, T, W]."""
        x = x + self.dropout(self.attention(self.attention_norm(x), cache=cache, mask=mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class FeedForward(nn.Module):
    """down(gelu(up(x))) (Radford et al. 2019)."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, shape.ffn_width, bias=shape.bias)
        self.down = nn.Linear(shape.ffn_width, shape.width, bias=shape.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, W] → [B, T, W]."""
        return self.down(gelu(self.up(x)))
