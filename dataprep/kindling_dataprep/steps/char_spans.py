"""Runs of characters, such as words, in many texts at once, each as a 64-bit hash.

The hash of a run is a polynomial in its code points modulo 2⁶⁴. Texts are looked at in blocks that stay in the
processor's cache; there, each character is multiplied by the power of its place in the block, and the power of the
run's place is divided out afterwards, which an odd base allows. The base is a constant, not a secret: equal hashes mean
equal runs in all texts that were not made to show the contrary.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from re import Pattern
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindling_runtime.splitmix import GOLDEN

Hashes = NDArray[np.uint64]
Integers = NDArray[np.int64]

BLOCK = 1 << 15
"""Characters."""
_INVERSE = np.uint64(pow(int(GOLDEN), -1, 1 << 64))


@dataclass(frozen=True)
class Block:
    """Some texts, or pieces of one."""

    owners: list[int]
    """The text that each piece belongs to."""
    offsets: list[int]
    """Where each piece begins in its text."""
    pieces: list[str]

    def joined(self) -> str:
        """The pieces, each after a line end; the last one is followed by one as well."""
        return "\n".join(["", *self.pieces, ""])

    def shifts(self) -> Integers:
        """[pieces] What to add to the place before a run in `joined` for the run's place in its text."""
        lengths = np.array([len(piece) + 1 for piece in self.pieces], dtype=np.int64)
        return np.array(self.offsets, dtype=np.int64) + lengths - np.cumsum(lengths)

    def counts(self, places: Integers) -> Integers:
        """[pieces] How many of the sorted `places` lie in each."""
        return np.diff(np.searchsorted(places, self._ends()), prepend=0)

    def _ends(self) -> Integers:
        return np.cumsum([len(piece) + 1 for piece in self.pieces])


def blocks(texts: Sequence[str], cut: Pattern[str]) -> Iterator[Block]:
    """The texts, together about BLOCK characters at a time.

    A longer text comes in pieces, each of which ends before a character that `cut` matches.
    """
    block, size = Block([], [], []), 0
    for owner, text in enumerate(texts):
        for begin, end in _pieces(text, cut):
            block.owners.append(owner)
            block.offsets.append(begin)
            block.pieces.append(text[begin:end])
            size += end - begin
            if size >= BLOCK:
                yield block
                block, size = Block([], [], []), 0
    if block.pieces:
        yield block


def _pieces(text: str, cut: Pattern[str]) -> Iterator[tuple[int, int]]:
    begin = 0
    while len(text) - begin > BLOCK:
        found = cut.search(text, begin + BLOCK)
        end = found.start() if found else len(text)
        yield begin, end
        begin = end
    yield begin, len(text)


def edges(inside: NDArray[np.bool_]) -> tuple[Integers, Integers]:
    """The runs of true: the places before each, and of the last of each. The first and last place are false."""
    changes = np.flatnonzero(inside[1:] != inside[:-1])
    return changes[::2], changes[1::2]


def hashes_of(codes: NDArray[Any], before: Integers, last: Integers) -> Hashes:
    """The hash of each run of `codes`, from the places that `edges` gives."""
    powers, inverses = _powers(-(-len(codes) // BLOCK) * BLOCK)
    sums = codes.astype(np.uint64)
    sums += np.uint64(1)  # so that a NUL counts
    sums *= powers[: len(codes)]
    np.cumsum(sums, out=sums)
    hashes: Hashes = (sums[last] - sums[before]) * inverses[before]
    return hashes


@functools.lru_cache(maxsize=2)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """([count], [count]) 1, base, base², … modulo 2⁶⁴, and the inverse of each."""
    powers, inverses = np.full((2, count), [[GOLDEN], [_INVERSE]], dtype=np.uint64)
    powers[0] = inverses[0] = 1
    return np.multiply.accumulate(powers), np.multiply.accumulate(inverses)


def by_code_point(text: str, ascii_table: bytes, table: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(code points, what `table` [0x110000] says of each); `ascii_table` is the same for the first 256, as bytes."""
    if text.isascii():
        data = text.encode()
        return np.frombuffer(data, np.uint8), np.frombuffer(data.translate(ascii_table), np.uint8)
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return codes, table.take(codes)
