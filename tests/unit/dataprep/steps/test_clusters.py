"""Of every cluster of duplicates one document stays."""

import numpy as np
import pytest

from kindling_dataprep.steps.clusters import clusters, near_duplicates


def test_components_follow_the_pairs() -> None:
    labels = clusters(np.array([[0, 4], [4, 2], [1, 3]]), 6)
    groups = {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}
    assert groups == {frozenset({0, 2, 4}), frozenset({1, 3}), frozenset({5})}


@pytest.mark.parametrize(
    ("lengths", "pairs", "removed"),
    [
        ([1, 3, 2, 1, 1], {(0, 1): 0.9, (1, 2): 0.8}, [(0, 1, 0.9), (2, 1, 0.8)]),
        ([1, 1, 1, 1, 1], {(2, 3): 1.0, (3, 4): 1.0}, [(3, 2, 1.0), (4, 2, 1.0)]),
        ([9, 1, 1, 1, 1], {(0, 1): 0.8, (1, 2): 0.99}, [(1, 0, 0.8), (2, 0, 0.99)]),
        ([1, 1, 2, 1, 2], {(0, 2): 0.8, (0, 3): 0.9, (1, 4): 0.8}, [(0, 2, 0.8), (1, 4, 0.8), (3, 2, 0.9)]),
    ],
    ids=["the longest stays", "the first of equals stays", "a chain", "two clusters"],
)
def test_one_document_of_a_cluster_stays(
    lengths: list[int], pairs: dict[tuple[int, int], float], removed: list[tuple[int, int, float]]
) -> None:
    found = near_duplicates([np.array(lengths)], np.array(list(pairs)), np.array(list(pairs.values())))
    rows = zip(found.removed.tolist(), found.kept.tolist(), found.jaccard.tolist(), strict=True)
    assert list(rows) == removed


@pytest.mark.parametrize(
    ("margins", "lengths", "stays"),
    [
        ([0.4, 0.5, 0.3], [9, 1, 5], 1),
        ([0.4, 0.5, 0.5], [9, 1, 5], 2),
        ([0.5, 0.5, 0.5], [9, 9, 5], 0),
    ],
    ids=["the widest margin", "the longest of those", "the first of those"],
)
def test_where_one_worth_ties_the_next_one_decides(margins: list[float], lengths: list[int], stays: int) -> None:
    pairs = np.array([[0, 1], [1, 2], [3, 4]])
    worth = [np.array([*margins, 0.1, 0.2]), np.array([*lengths, 1, 1])]
    found = near_duplicates(worth, pairs, np.full(3, 0.9))
    assert set(range(5)) - set(found.removed.tolist()) == {stays, 4}
    assert found.kept.tolist() == [stays, stays, 4]


def test_without_pairs_nothing_is_removed() -> None:
    found = near_duplicates([np.ones(5, np.int64)], np.empty((0, 2), np.int64), np.empty(0))
    assert found.removed.tolist() == found.kept.tolist() == found.jaccard.tolist() == []
