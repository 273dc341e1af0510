"""Which documents are held out, how often each occurs, in which order, and where one shard ends.

Pure functions of hashes and lengths: the same documents give the same shards, whoever read them and in whatever order
the work was done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kindling_runtime.splitmix import GOLDEN, mix

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Pieces:
    """Runs of tokens, each out of one document: parallel arrays. Only a tail split cuts a document into two."""

    document: Integers
    start: Integers
    length: Integers

    @classmethod
    def whole(cls, documents: Integers, lengths: Integers) -> Self:
        """The given documents, each in full, without empty ones; `lengths` holds those of all documents."""
        documents = documents[lengths[documents] > 0]
        return cls(documents, np.zeros_like(documents), lengths[documents])

    def repeated(self, counts: Integers) -> Self:
        """The i-th piece `counts[i]` times in a row."""
        return type(self)(*(np.repeat(column, counts) for column in (self.document, self.start, self.length)))

    def __getitem__(self, part: slice) -> Self:
        return type(self)(self.document[part], self.start[part], self.length[part])

    def __len__(self) -> int:
        return len(self.document)


def split_by_digest(content: Hashes, fraction: float) -> NDArray[np.bool_]:
    """True for documents that are held out: those whose content hash lies in the lowest `fraction` of all hashes.

    A document's side depends on its text alone, whatever else is in the build. Where the build is so small that a side
    would be empty, the highest hash is trained on, and the lowest is held out if it is another.
    """
    held_out = content < np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))
    if fraction > 0 and len(content):
        held_out[np.argmin(content)] = True
        held_out[np.argmax(content)] = False
    return held_out


def split_by_tail(lengths: Integers, tail: float) -> tuple[Pieces, Pieces]:
    """The stream of all tokens, in the order of the sources, cut at token `int(n * (1 - tail))`.

    The document at the cut is divided: its head is the last of the first part, its rest the first of the second. For
    one document of characters this is nanoGPT's `data[:int(n*0.9)]`, `data[int(n*0.9):]`.
    """
    ends = np.cumsum(lengths)
    cut = int(int(lengths.sum()) * (1 - tail))
    documents = np.arange(len(lengths), dtype=np.int64)
    before = np.clip(cut - (ends - lengths), 0, lengths)
    head = Pieces(documents, np.zeros_like(documents), before)
    rest = Pieces(documents, before, lengths - before)
    return _without_empty(head), _without_empty(rest)


def _without_empty(pieces: Pieces) -> Pieces:
    some = pieces.length > 0
    return Pieces(pieces.document[some], pieces.start[some], pieces.length[some])


def copies(identity: Hashes, weight: NDArray[np.float64]) -> Integers:
    """How often each document occurs: weight 2.5 is twice, and by its hash half of the documents a third time."""
    whole = np.floor(weight)
    chance = mix(identity ^ np.uint64(0x5851F42D4C957F2D)).astype(np.float64) / 2.0**64
    return (whole + (chance < weight - whole)).astype(np.int64)


def shuffled(documents: Integers, counts: Integers, identity: Hashes) -> Integers:
    """`documents`, the i-th of them `counts[i]` times, in the order of the hashes of (identity, number of the copy)."""
    every = np.repeat(documents, counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    copy = (np.arange(len(every), dtype=np.int64) - first).astype(np.uint64)
    keys = mix(np.repeat(identity, counts) + copy * GOLDEN)
    return every[np.argsort(keys, kind="stable")]


def cut_into_shards(pieces: Pieces, tokens_per_shard: int) -> list[Pieces]:
    """A new shard begins once the current one holds `tokens_per_shard` tokens; a piece is never cut."""
    ends = np.cumsum(pieces.length)
    shards = []
    first, done = 0, 0
    while first < len(pieces):
        last = min(int(np.searchsorted(ends, done + tokens_per_shard, side="left")) + 1, len(pieces))
        shards.append(pieces[first:last])
        first, done = last, int(ends[last - 1])
    return shards
