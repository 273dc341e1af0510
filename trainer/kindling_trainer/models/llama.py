"""The Llama decoder: rotary positions, grouped-query attention, SwiGLU, RMSNorm (Touvron et al. 2023).

`shape.variant` says how other families differ from it: docs/design/0019-families-of-models.md.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.models.kv_cache import KVCache, LayerCache
from kindling_trainer.models.layers import Attention, Scale, TiedHead, gelu, rms_norm, window_mask
from kindling_trainer.models.rotary import Rotary


class Llama(TiedHead):
    """tokens [B, T] → logits [B, T, V], in the dtype of the weights; V is the padded vocabulary."""

    def __init__(self, shape: ModelShape, vocab_size: int) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(vocab_size, shape.width)
        self.scale = nn.Identity() if shape.variant.embedding_scale == 1 else Scale(shape.variant.embedding_scale)
        self.rotary = Rotary(shape)
        self.window_rotary = self.rotary if shape.variant.window_rope_theta is None else Rotary(shape, windowed=True)
        self.layers = nn.ModuleList(LlamaBlock(shape) for _ in range(shape.layers))
        self.norm = rms_norm(shape, shape.width)
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
        variant, where = self.shape.variant, slice(tokens.shape[1]) if positions is None else positions
        rotation, near, near_mask = self.rotary(where), self.window_rotary(where), mask
        if variant.window is not None:
            seen = max(cache.lengths) if cache is not None else tokens.shape[1] if mask is None else mask.shape[-1]
            near_mask = window_mask(mask, tokens.shape[1], seen, variant.window, tokens.device)
        x = self.scale(self.embedding(tokens))  # [B, T, W]
        for index, layer in enumerate(self.layers):
            turned, sees = (near, near_mask) if index in variant.windowed_layers else (rotation, mask)
            if index in variant.unrotated_layers:
                turned = None
            x = layer(x, turned, cache.layers[index] if cache else None, sees)
        x = self.norm(x)
        if not score:
            return self.head(x)
        assert self.value is not None
        return self.head(x), self.value(x)


class LlamaBlock(nn.Module):
    """Attention, then feed-forward; each reads a normalised copy of the stream and adds to it."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        before, after = shape.variant.norms != "after", shape.variant.norms != "before"
        self.attention_norm = rms_norm(shape, shape.width) if before else nn.Identity()
        self.attention = Attention(shape)
        self.attention_output_norm = rms_norm(shape, shape.width) if after else nn.Identity()
        self.feed_forward_norm = rms_norm(shape, shape.width) if before else nn.Identity()
        self.feed_forward = GatedFeedForward(shape)
        self.feed_forward_output_norm = rms_norm(shape, shape.width) if after else nn.Identity()

    def forward(
        self, x: Tensor, rotation: Tensor | None, cache: LayerCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """x [B, T, W] → [B, T, W]."""
        mixed = self.attention(self.attention_norm(x), rotation, cache, mask=mask)
        x = x + self.attention_output_norm(mixed)
        return x + self.feed_forward_output_norm(self.feed_forward(self.feed_forward_norm(x)))


class GatedFeedForward(nn.Module):
    """down(silu(gate(x)) · up(x)), or with GELU (Shazeer 2020, GLU Variants Improve Transformer, §2)."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.width, shape.ffn_width, bias=False)
        self.up = nn.Linear(shape.width, shape.ffn_width, bias=False)
        self.down = nn.Linear(shape.ffn_width, shape.width, bias=False)
        self.activation = F.silu if shape.variant.activation == "silu" else gelu

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, W] → [B, T, W]."""
        return self.down(self.activation(self.gate(x)) * self.up(x))
