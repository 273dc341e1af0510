"""What the ledger says of duplicates, and how the pairs to verify are cut into groups."""

from __future__ import annotations

import numpy as np

from kindling_dataprep.stages.deduplicate import removals_of
from kindling_dataprep.stages.verify import groups_of
from kindling_dataprep.steps.clusters import Duplicates


def duplicates(*rows: tuple[int, int, float]) -> Duplicates:
    return Duplicates(*(np.array(column) for column in zip(*rows, strict=True)))


def test_a_copy_of_a_near_copy_names_the_document_that_stays() -> None:
    removals = removals_of(duplicates((2, 1, 1.0), (4, 3, 1.0)), duplicates((1, 0, 0.9)))
    assert [tuple(row.values()) for row in removals.to_pylist()] == [
        (1, 0, "minHash", 0.9),
        (2, 0, "exact", None),
        (4, 3, "exact", None),
    ]


def test_groups_hold_so_many_characters_and_keep_together_what_hangs_together() -> None:
    pairs = np.array([[0, 5], [1, 2], [3, 4], [4, 5]])
    characters = np.array([10, 10, 10, 10, 10, 10])
    assert groups_of(pairs, characters, 10_000).tolist() == [0, 0, 0, 0]
    first, other, *rest = groups_of(pairs, characters, 61).tolist()
    assert [first, *rest] == [0, 0, 0] or first != other
