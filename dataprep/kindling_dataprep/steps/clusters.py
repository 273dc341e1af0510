"""Which of many duplicates stays: one document for each cluster of verified pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Duplicates:
    """The documents to remove: parallel arrays, in the order of the documents."""

    removed: Integers
    kept: Integers
    """The document that stays in the place of each."""
    jaccard: Floats
    """How similar the two are; where they hang together only through others, how similar the closest of those is."""


NO_DUPLICATES = Duplicates(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


def near_duplicates(worth: Sequence[Integers | Floats], pairs: Integers, similarities: Floats) -> Duplicates:
    """Of every cluster of pairs the document of the highest worth stays, the first among equals.

    Args:
        worth: Arrays [documents], such as their lengths: where the first of them ties, the next one decides.
        pairs: [m, 2] Near-duplicates, as positions in those arrays.
        similarities: [m] How similar they are.
    """
    documents, ends = np.unique(pairs, return_inverse=True)
    ends = ends.reshape(-1, 2)
    labels = clusters(ends, len(documents))
    order = np.lexsort((documents, *(-each[documents] for each in reversed(worth)), labels))
    _, first = np.unique(labels[order], return_index=True)
    kept = order[first][labels]
    jaccard = _closest(ends, similarities, kept)
    goes = kept != np.arange(len(documents))
    return Duplicates(documents[goes], documents[kept][goes], jaccard[goes])


def clusters(pairs: Integers, count: int) -> Integers:
    """[count] The number of each text's connected component, where `pairs` [m, 2] are the edges."""
    edges = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, labels = connected_components(edges, directed=False)
    return np.asarray(labels, dtype=np.int64)


def _closest(pairs: Integers, similarities: Floats, kept: Integers) -> Floats:
    """[documents] The similarity of each with the one `kept`, or else with the most similar of its pairs."""
    one, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    similarities = np.tile(similarities, 2)
    order = np.lexsort((similarities, kept[one] == other, one))
    last = np.flatnonzero(np.diff(one[order], append=-1))
    return similarities[order[last]]
