"""Which documents lie in given windows of a dataset: the way back from a step to what it read. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kindling_api.v1alpha1.products import Shard
from kindling_storage import ObjectStore
from kindling_trainer.data.order import Numbers
from kindling_trainer.data.shards import document_ends


@dataclass(frozen=True, order=True)
class Passage:
    """Tokens of one document that lie in one window."""

    shard: str
    document: int
    """Its number in the shard, from 0."""
    offset: int
    """The first token's, within the document."""
    tokens: int


def passages(store: ObjectStore, shards: Sequence[Shard], starts: Numbers, length: int) -> list[list[Passage]]:
    """What lies in the windows of `length` tokens that begin at these places of the stream of the shards, window by
    window; only the shards that they touch are opened.

    Raises:
        DataError: a shard's index is damaged.
    """
    shard_ends = np.cumsum([shard.tokens for shard in shards], dtype=np.int64)
    indices: dict[str, Numbers] = {}

    def ends(shard: str) -> Numbers:
        if shard not in indices:
            indices[shard] = document_ends(f"{shard}.idx", store.get(f"{shard}.idx"))
        return indices[shard]

    found = []
    for start in starts.tolist():
        window, at, stop = [], start, start + length
        while at < min(stop, int(shard_ends[-1])):
            number = int(np.searchsorted(shard_ends, at, side="right"))
            shard, first = shards[number], int(shard_ends[number]) - shards[number].tokens
            document = int(np.searchsorted(ends(shard.path), at - first, side="right"))
            begin = int(ends(shard.path)[document - 1]) if document else 0
            until = min(stop, first + int(ends(shard.path)[document]))
            window.append(Passage(shard.path, document, at - first - begin, until - at))
            at = until
        found.append(window)
    return found
