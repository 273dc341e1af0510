"""Documents that a reader would call the same are the same, and no others."""

import numpy as np
import pytest

from kindling_dataprep.steps.exact import first_of_equals, text_digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("one two", "one two"),
        ("one two", " one\n\ttwo\u00a0 "),
        ("One Two", "oNE tWO"),
        ("café", "cafe\u0301"),
        ("STRASSE", "straße"),
        ("ΌΣΟΣ", "όσος"),
        ("\u1fb3\u0301", "\u1fb4"),
    ],
    ids=["equal", "white space", "case", "normal form", "sharp s", "final sigma", "folding undoes the normal form"],
)
def test_texts_that_differ_in_nothing_that_counts_have_one_digest(one: str, other: str) -> None:
    assert text_digest(one) == text_digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("one two", "onetwo"), ("one, two", "one two"), ("cafe", "café"), ("1", "2"), ("", "x")],
    ids=["no space", "punctuation", "accent", "digit", "empty"],
)
def test_other_texts_have_other_digests(one: str, other: str) -> None:
    assert text_digest(one) != text_digest(other)


def test_a_digest_has_16_bytes_and_never_changes() -> None:
    assert text_digest("One  two").hex() == "0e8fa0ea5fd6fe4ce8eb1460b6a93ffe"


def test_each_document_leads_to_the_first_of_its_equals() -> None:
    digests = np.array([[1, 0], [2, 0], [1, 0], [1, 1], [1, 0], [2, 0]], dtype=np.uint64)
    assert first_of_equals(digests).tolist() == [0, 1, 0, 3, 0, 1]


def test_without_documents_there_is_nothing_to_compare() -> None:
    assert first_of_equals(np.empty((0, 2), dtype=np.uint64)).tolist() == []
