"""What both decoders are made of: causal attention, its rotary positions, its key-value cache.

Dimensions are written B (batch), T (positions), S (positions seen, T and those cached), H (heads), D (head width),
W (width). H is counted from the tensors, never from the configuration: under tensor parallelism a process holds only
some of the heads.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.models.cache import LayerCache

# Compiled code leaves `rotate` to PyTorch's own kernels; measured on a CPU, that costs nothing against real arithmetic.
warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex operators")


class Attention(nn.Module):
    """Causal self-attention in which groups of query heads share a key-value head (Ainslie et al. 2023, GQA)."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        kv_width = shape.kv_heads * shape.head_width
        self.query = nn.Linear(shape.width, shape.width, bias=shape.bias)
        self.key = nn.Linear(shape.width, kv_width, bias=shape.bias)
        self.value = nn.Linear(shape.width, kv_width, bias=shape.bias)
        self.output = nn.Linear(shape.width, shape.width, bias=shape.bias)
        self.core: nn.Module = CoreAttention(shape.dropout)
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
        query = self.query(x).unflatten(-1, (-1, self.head_width))  # [B, T, H, D]
        key = self.key(x).unflatten(-1, (-1, self.head_width))
        value = self.value(x).unflatten(-1, (-1, self.head_width))
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)  # [B, H, T, D]
        if cache is not None:
            key, value = cache.append(key, value)  # [B, H, S, D]
        return self.output(self.core(query, key, value, mask).transpose(1, 2).flatten(-2))


class CoreAttention(nn.Module):
    """What is between the projections, and has no weights."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Queries [B, H, T, D], keys and values [B, H, S, D] → [B, H, T, D]: every position sees itself and what came
        before it, or what `mask` says."""
        attend = partial(
            F.scaled_dot_product_attention,
            attn_mask=mask,
            is_causal=mask is None and key.shape[2] == query.shape[2],
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        if query.device.type != "cpu":
            return attend(query, key, value)
        with torch.autocast("cpu", enabled=False):  # in bfloat16, its backward pass takes four times as long as in fp32
            return attend(query.float(), key.float(), value.float()).type_as(query)


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


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turns each pair of neighbours of x [B, T, H, D], read as one complex number, by `rotation` [T, D/2], or
    [B, T, D/2]."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation.unsqueeze(-2)).flatten(-2).type_as(x)


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021, RoFormer, §3.2.2) in its complex form.

    Position p turns the i-th pair of a head by the angle p · theta^(-2i/D), that is, multiplies it by a complex number
    of modulus 1. The table of these numbers is no part of the state: it is computed again whenever the module moves,
    so that it survives the meta device and keeps its precision when the model becomes bfloat16.
    """

    table: Tensor

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.width, self.context, self.theta = shape.head_width, shape.context, shape.rope_theta
        self.register_buffer("table", self._table(), persistent=False)

    def forward(self, positions: Tensor | slice) -> Tensor:
        """The rotations of positions [(B,) T]: complex64 [(B,) T, D/2]."""
        return self.table[positions]

    def _table(self, device: torch.device | None = None) -> Tensor:
        pairs = torch.arange(0, self.width, 2, device=device, dtype=torch.float32)
        positions = torch.arange(self.context, device=device, dtype=torch.float32)
        angles = torch.outer(positions, self.theta ** (-pairs / self.width))
        return torch.polar(torch.ones_like(angles), angles)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.table = self._table(fn(torch.empty(0, device=self.table.device)).device)
        return self
