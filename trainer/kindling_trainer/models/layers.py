"""What both decoders are made of: causal attention, its masks, norms, activations.

Dimensions are written B (batch), T (positions), S (positions seen, T and those cached), H (heads), D (head width),
W (width). H is counted from the tensors, never from the configuration: under tensor parallelism a process holds only
some of the heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.models.kv_cache import LayerCache
from kindling_trainer.models.rotary import rotate


class TiedHead(nn.Module):
    """A decoder whose head may be its embedding."""

    shape: ModelShape
    embedding: nn.Embedding
    head: nn.Linear

    def tie(self) -> None:
        """Makes the head the embedding where the shape says so; to be called when either was replaced."""
        if self.shape.tied_embeddings:
            self.head.weight = self.embedding.weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.tie()  # `to_empty` gives each module a parameter of its own
        return self


class Attention(nn.Module):
    """Causal self-attention in which groups of query heads share a key-value head (Ainslie et al. 2023, GQA)."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        variant, inner, kv_width = shape.variant, shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        bias = shape.bias or variant.attention_bias != "none"
        self.query = nn.Linear(shape.width, inner, bias=bias)
        self.key = nn.Linear(shape.width, kv_width, bias=bias)
        self.value = nn.Linear(shape.width, kv_width, bias=bias)
        self.output = nn.Linear(inner, shape.width, bias=shape.bias or variant.attention_bias == "all")
        self.query_norm, self.key_norm = (_head_norm(shape, heads) for heads in (shape.heads, shape.kv_heads))
        scale = None if variant.attention_scalar is None else variant.attention_scalar**-0.5
        self.core: nn.Module = CoreAttention(shape.dropout, scale)
        self.head_width = shape.head_width

    def forward(
        self,
        x: Tensor,
        rotation: Tensor | None = None,
        cache: LayerCache | None = None,
        *,
        mask: Tensor | None = None,
    ) -> Tensor:
        """x [B, T, W] → [B, T, W]; `rotation` [T, D/2] or [B, T, D/2], complex, turns queries and keys.

        `mask` [B, 1, T, S] says what each position sees, where that is not all that came before it.
        """
        query = self.query_norm(self.query(x).unflatten(-1, (-1, self.head_width)))  # [B, T, H, D]
        key = self.key_norm(self.key(x).unflatten(-1, (-1, self.head_width)))
        value = self.value(x).unflatten(-1, (-1, self.head_width))
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)  # [B, H, T, D]
        if cache is not None:
            key, value = cache.append(key, value)  # [B, H, S, D]
        return self.output(self.core(query, key, value, mask).transpose(1, 2).flatten(-2))


class CoreAttention(nn.Module):
    """What is between the projections, and has no weights."""

    def __init__(self, dropout: float, scale: float | None = None) -> None:
        """Scores are multiplied by `scale`, or by 1 / √D."""
        super().__init__()
        self.dropout, self.scale = dropout, scale

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Queries [B, H, T, D], keys and values [B, H, S, D] → [B, H, T, D]: every position sees itself and what came
        before it, or what `mask` says."""
        attend = partial(
            F.scaled_dot_product_attention,
            attn_mask=mask,
            is_causal=mask is None and key.shape[2] == query.shape[2],
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        if query.device.type != "cpu":
            return attend(query, key, value)
        with torch.autocast("cpu", enabled=False):  # in bfloat16, its backward pass takes four times as long as in fp32
            return attend(query.float(), key.float(), value.float()).type_as(query)


def rms_norm(shape: ModelShape, *size: int) -> nn.Module:
    """The model's RMSNorm (Zhang and Sennrich 2019), over the last dimensions, which have this size."""
    make = OffsetRMSNorm if shape.variant.offset_norms else nn.RMSNorm
    return make(list(size), eps=shape.norm_epsilon)


def _head_norm(shape: ModelShape, heads: int) -> nn.Module:
    """What normalises queries or keys [B, T, H, D] (Dehghani et al. 2023, QK-norm)."""
    match shape.variant.qk_norm:
        case "head":
            return rms_norm(shape, shape.head_width)
        case "width":
            return rms_norm(shape, heads, shape.head_width)
        case "none":
            return nn.Identity()


class OffsetRMSNorm(nn.Module):
    """RMSNorm whose weights are 1 + `offset`, in fp32, as Gemma has it."""

    def __init__(self, size: list[int], eps: float) -> None:
        super().__init__()
        self.size, self.eps = size, eps
        self.offset = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., W] → [..., W]."""
        return F.rms_norm(x.float(), self.size, 1 + self.offset.float(), self.eps).to(x.dtype)


class Scale(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """x → factor · x."""
        return self.factor * x


def gelu(x: Tensor) -> Tensor:
    """GELU in the tanh approximation that GPT-2 uses (Hendrycks and Gimpel 2016, §2): ½x(1 + tanh u), where
    u = √(2/π)(x + 0.044715x³).

    Compiled, it is written as x·σ(2u), which is the same number: on a CPU σ costs half of what tanh does. As it is
    written, PyTorch's own operator keeps less for the backward pass.
    """
    if torch.compiler.is_compiling():
        return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
    return F.gelu(x, approximate="tanh")


class ValueHead(nn.Module):
    """One number for each position, linear in the last hidden state; 0 at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, W] → [B, T]."""
        return x @ self.weight


def document_mask(documents: Tensor, rows: Tensor | None = None) -> Tensor:
    """Who sees whom where several texts share a sequence: documents [B, T] → bool [B, 1, Q, T], query by key.

    A position sees itself and those before it that have the same number. The queries are all T, or those at `rows` [Q].
    """
    places = torch.arange(documents.shape[1], device=documents.device)
    rows = places if rows is None else rows
    return (documents[:, None, rows, None] == documents[:, None, None, :]) & (places <= rows[:, None])


def positions_in(documents: Tensor) -> Tensor:
    """Each position's place in its own text, from 0: documents [B, T], whose equal numbers stand together → [B, T]."""
    places = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)
    return places - torch.where(begins, places, 0).cummax(dim=1).values


def window_mask(mask: Tensor | None, queries: int, keys: int, window: int, device: torch.device) -> Tensor | None:
    """Of what each position sees, the newest `window`: bool [B, 1, Q, S], or None where that is all before it.

    Args:
        mask: what it sees, one stretch of positions with itself as the last; None where that is all before it.
        queries: Q, the last of the positions.
        keys: S, all of them.
    """
    if keys <= window:
        return mask
    if mask is None:
        places = torch.arange(keys, device=device)
        ages = places[keys - queries :, None] - places
        return ((ages >= 0) & (ages < window))[None, None]
    return mask & (mask.flip(-1).cumsum(-1).flip(-1) <= window)
