"""The key-value cache of generation: what earlier positions leave behind for later ones.

Rows are texts of different lengths, side by side. Each fills its own memory from the start, so a row's positions are
what they would be if it were alone, and rows can come and go while the others are being continued.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class KVCache:
    """Keys and values of every layer for some rows; memory grows with the rows and their lengths, in doublings."""

    def __init__(self, layers: int, rows: int = 1) -> None:
        self.layers = [LayerCache(self) for _ in range(layers)]
        self.lengths = [0] * rows
        """Positions that each row has."""
        self.positions = torch.empty(0, 0, dtype=torch.int64)
        """Positions of the tokens that are being read now: [B, T]."""
        self.mask: Tensor | None = None
        """Which positions each of them sees: [B, 1, T, S]; None where it is all before it, itself included."""

    def extend(self, tokens: Tensor) -> Tensor:
        """The positions [B, T] of tokens [B, T] that continue the rows, and are now read, layer by layer."""
        length, device = tokens.shape[1], tokens.device
        starts, self.lengths = self.lengths, [before + length for before in self.lengths]
        self.positions = torch.tensor(starts, device=device)[:, None] + torch.arange(length, device=device)
        if not any(starts) or (length == 1 and len(set(starts)) == 1):
            self.mask = None
        else:
            self.mask = (torch.arange(max(self.lengths), device=device) <= self.positions[..., None])[:, None]
        return self.positions

    def cut(self, lengths: Sequence[int]) -> None:
        """Forgets what each row has beyond its length, such as padding at the end."""
        self.lengths = list(lengths)

    def add(self, other: KVCache) -> None:
        """Adds the rows of another cache after these."""
        rows, more = len(self.lengths), len(other.lengths)
        self.lengths += other.lengths
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            length = max(other.lengths)
            keys, values = theirs.keys[:more, :, :length], theirs.values[:more, :, :length]
            mine.reserve(keys, max(self.lengths))
            mine.keys[rows : rows + more, :, :length] = keys
            mine.values[rows : rows + more, :, :length] = values

    def remove(self, row: int) -> None:
        """Takes a row out; the last one takes its place."""
        length = self.lengths[row] = self.lengths[-1]
        last = len(self.lengths) - 1
        self.lengths.pop()
        for layer in self.layers:
            layer.keys[row, :, :length] = layer.keys[last, :, :length]
            layer.values[row, :, :length] = layer.values[last, :, :length]


class LayerCache:
    """One layer's keys and values: [rows, H, positions, D] each, of which the cache's lengths say what is in use."""

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.keys = self.values = torch.empty(0, 0, 0, 0)

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds key and value [B, H, T, D] at the positions being read; returns all so far [B, H, S, D]."""
        rows, end = len(self.cache.lengths), max(self.cache.lengths)
        self.reserve(key, end)
        where = (torch.arange(rows, device=key.device)[:, None], slice(None), self.cache.positions)
        self.keys[where] = key.transpose(1, 2)  # [B, T, H, D]
        self.values[where] = value.transpose(1, 2)
        return self.keys[:rows, :, :end], self.values[:rows, :, :end]

    def reserve(self, like: Tensor, positions: int) -> None:
        """Makes room for all rows of the cache and this many positions; heads and dtype are those of `like`."""
        rows = len(self.cache.lengths)
        if rows <= self.keys.shape[0] and positions <= self.keys.shape[2]:
            return
        size = (_room(rows, self.keys.shape[0]), like.shape[1], _room(positions, self.keys.shape[2]), like.shape[3])
        self.keys, self.values = _grown(self.keys, like, size), _grown(self.values, like, size)


def _room(needed: int, there: int) -> int:
    return there if needed <= there else max(needed, 2 * there)


def _grown(tensor: Tensor, like: Tensor, size: tuple[int, int, int, int]) -> Tensor:
    grown = like.new_zeros(size)  # what is masked counts with weight 0, and 0 · NaN is NaN
    rows, _, positions, _ = tensor.shape
    if tensor.numel():
        grown[:rows, :, :positions] = tensor
    return grown
