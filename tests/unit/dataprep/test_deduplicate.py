"""What the ledger says of duplicates."""

from __future__ import annotations

from kindling_dataprep.stages.deduplicate import removals_of


def test_a_copy_of_a_near_copy_names_the_document_that_stays() -> None:
    removals = removals_of({"c": "b"}, {"b": ("a", 0.9)}, 0.8)
    assert {id: (removal.rule, removal.kept) for id, removal in removals.items()} == {
        "c": ("exact", "a"),
        "b": ("minHash", "a"),
    }
    assert (removals["b"].measure, removals["b"].value, removals["b"].threshold) == ("jaccard", 0.9, 0.8)
