"""What the model has read of texts that are done, for texts that begin alike: the next turn of a dialogue above all.

Keys and values of a position depend on the tokens up to it alone, so those of a common prefix are the same (as in
vLLM's automatic prefix caching and SGLang's RadixAttention, Zheng et al. 2023, §3; here whole texts are kept, not pages
or a tree of them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from kindling_trainer.models.kv_cache import KVCache

LEAST = 32
"""Tokens of a prefix that is worth its while: a text that has one is read alone, not beside others."""


@dataclass(eq=False)
class _Text:
    tokens: list[int]
    layers: list[tuple[Tensor, Tensor]]
    """Keys and values [H, T, D] of each layer."""

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


class PrefixCache:
    """Keys and values of whole texts, the newest used of them, in bounded memory."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._texts: list[_Text] = []
        """The one that was used last comes last."""

    @property
    def nbytes(self) -> int:
        """The memory that is taken."""
        return sum(text.nbytes for text in self._texts)

    def keep(self, tokens: Sequence[int], cache: KVCache, row: int) -> None:
        """Keep what `cache` has in a row, of these tokens; what has not been used for longest makes room."""
        length = cache.lengths[row]
        read = list(tokens[:length])
        heads, width, size = cache.layers[0].keys.shape[1], cache.layers[0].keys.shape[3], cache.layers[0].keys.itemsize
        needed = 2 * len(cache.layers) * heads * length * width * size
        if length < LEAST or needed > self.most_bytes or self._shared(read)[0] == length:
            return
        self._texts = [text for text in self._texts if text.tokens != read[: len(text.tokens)]]  # it is in this one
        while self._texts and self.nbytes + needed > self.most_bytes:
            del self._texts[0]
        layers = [
            (layer.keys[row, :, :length].clone(), layer.values[row, :, :length].clone()) for layer in cache.layers
        ]
        self._texts.append(_Text(read, layers))

    def shared(self, tokens: Sequence[int]) -> int:
        """How many of the first of these tokens need not be read, of all but the last; 0 where that is not worth it."""
        length, _ = self._shared(list(tokens[:-1]))
        return length if length >= LEAST else 0

    def begin(self, tokens: Sequence[int]) -> KVCache:
        """A cache of one row that has read as many of these tokens as `shared` says."""
        length, text = self._shared(list(tokens[:-1]))
        assert text is not None, "shared says how many"
        self._texts.remove(text)
        self._texts.append(text)
        cache = KVCache(len(text.layers))
        cache.lengths = [length]
        for layer, (keys, values) in zip(cache.layers, text.layers, strict=True):
            layer.keys, layer.values = keys[None, :, :length], values[None, :, :length]  # what is added makes copies
        return cache

    def _shared(self, tokens: list[int]) -> tuple[int, _Text | None]:
        """The longest beginning that a kept text has, too."""
        found = [(_common(text.tokens, tokens), text) for text in self._texts]
        return max(found, key=lambda each: each[0], default=(0, None))


def _common(one: list[int], other: list[int]) -> int:
    """How many first tokens are the same, by halving: lists are compared faster than tokens."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
