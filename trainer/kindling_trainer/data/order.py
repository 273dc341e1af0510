"""Which windows of the stream a step reads: a pure function of the seed and the step.

The training part is a stream of N tokens. An epoch cuts it, from an offset of its own, into n windows of T + 1 tokens
that overlap by one, so that each token is predicted once, and reads them in an order of its own. Windows are numbered
on across epochs: step s of a batch of S sequences reads numbers s·S … s·S + S - 1, of those that are not left out.
Nothing is remembered between steps, so that a run resumes, on any layout, from its step and what it leaves out alone.

The order of an epoch is a permutation that is computed and not stored: a Feistel network over the numbers below the
next power of four, walked along its cycles until it lands below n (Black and Rogaway 2002, "Ciphers with Arbitrary
Finite Domains"). Its round function is the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kindling_api.errors import DataError, explain
from kindling_api.v1alpha1.windows import WindowRange
from kindling_runtime.splitmix import GOLDEN, mix

ROUNDS = 6  # Luby and Rackoff (1988) need four for a pseudo-random permutation; two more, since the halves are small
_MASK = (1 << 64) - 1

Numbers = NDArray[np.int64]
Item = TypeVar("Item")


@dataclass(frozen=True)
class WindowOrder:
    """The order of the windows of T + 1 = `context` + 1 tokens over a stream of `tokens` tokens: one or more."""

    tokens: int
    context: int
    seed: int
    skips: tuple[WindowRange, ...] = ()
    """Windows that are left out, by their numbers before any was; as `merged` gives them."""

    def numbers(self, first: int, count: int) -> Numbers:
        """The windows `first` … `first + count - 1` of those that are not left out, by their numbers among all."""
        numbers = np.arange(first, first + count, dtype=np.int64)
        for skip in self.skips:
            numbers[numbers >= skip.first] += skip.count
        return numbers

    @property
    def epoch_windows(self) -> int:
        """Windows of one epoch. One fewer than fit (where more than one fits), which leaves room for the offset."""
        return max(1, (self.tokens - 1) // self.context - 1)

    def starts(self, first: int, count: int) -> Numbers:
        """The first tokens' places in the stream of the windows `first` … `first + count - 1` of those that are not
        left out."""
        numbers = self.numbers(first, count)
        epochs = numbers // self.epoch_windows
        starts = np.empty_like(numbers)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            windows = permute(numbers[here] % self.epoch_windows, self.epoch_windows, self._key(int(epoch)))
            starts[here] = self._offset(int(epoch)) + windows * self.context
        return starts

    def _offset(self, epoch: int) -> int:
        slack = self.tokens - 1 - self.epoch_windows * self.context
        return self._key(epoch) % (slack + 1)

    def _key(self, epoch: int) -> int:
        return _epoch_key(self.seed, epoch)


def check_enough(tokens: int, context: int) -> None:
    """Refuse a training part that holds not even one window.

    Raises:
        DataError: it has fewer than `context` + 1 tokens.
    """
    if tokens <= context:
        raise DataError(
            explain(
                "spec.dataset",
                found=f"{tokens} training tokens",
                allowed=f"at least one window of spec.model.context + 1 = {context + 1} tokens",
                remedy="add sources, remove fewer documents, or use a smaller spec.model.context",
            )
        )


def shuffled(counted: range, size: int, seed: int) -> list[int]:
    """Which of `size` items have some numbers that are counted on across epochs, each of which has every item once, in
    an order of its own."""
    numbers = np.array(counted, dtype=np.int64)
    places = np.empty_like(numbers)
    for epoch in np.unique(numbers // size):
        here = numbers // size == epoch
        places[here] = permute(numbers[here] % size, size, _epoch_key(seed, int(epoch)))
    return [int(place) for place in places]


class Counted(Iterator[Item]):
    """An iterator of which `operator.length_hint` knows how many items there are."""

    def __init__(self, items: Iterator[Item], count: int) -> None:
        self._items, self._left = items, count

    def __next__(self) -> Item:
        item = next(self._items)
        self._left -= 1
        return item

    def __length_hint__(self) -> int:
        return max(0, self._left)


def grouped(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one of what is left; no item is taken before its list is asked for.

    As `itertools.batched`, until Python 3.11 goes.
    """
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def permute(numbers: Numbers, size: int, key: int) -> Numbers:
    """The images of `numbers` under the permutation of 0 … `size` - 1 that `key` selects."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    images = _feistel(numbers.astype(np.uint64), half, key)
    while (outside := images >= size).any():
        images[outside] = _feistel(images[outside], half, key)
    return images.astype(np.int64)


def _epoch_key(seed: int, epoch: int) -> int:
    return int(mix(np.array([(seed << 32 | epoch) & _MASK], dtype=np.uint64) + GOLDEN)[0])


def _feistel(numbers: NDArray[np.uint64], half: int, key: int) -> NDArray[np.uint64]:
    """A permutation of the numbers of 2 · `half` bits."""
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = numbers >> shift, numbers & mask
    for round_number in range(ROUNDS):
        round_key = np.uint64((key + round_number * int(GOLDEN)) & _MASK)
        left, right = right, left ^ (mix((right ^ round_key) + GOLDEN) & mask)
    return left << shift | right
