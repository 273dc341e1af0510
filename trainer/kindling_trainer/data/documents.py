"""Where documents begin and end in windows of a dataset, and which lie there: the way back from a step to what it read.
Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.products import DatasetManifest, Shard
from kindling_api.v1alpha1.training import PretrainingSpec
from kindling_storage import ObjectStore
from kindling_trainer.data.order import Numbers
from kindling_trainer.data.shards import document_ends


def check_has_ends(training: PretrainingSpec, dataset: DatasetManifest) -> None:
    """Refuse a document mask over a dataset in which nothing says where a document ends.

    Raises:
        SpecError: the tokenizer has no such token.
    """
    if training.document_mask and dataset.tokenizer.end_of_document is None:
        raise SpecError(
            explain(
                "spec.training.documentMask",
                found=f"a dataset of which the tokenizer ({dataset.tokenizer.kind}) has no token that ends a document",
                allowed="a tokenizer with such a token: trained, byte, or one that exists",
                remedy="remove documentMask, or build the dataset with another tokenizer",
            )
        )


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
