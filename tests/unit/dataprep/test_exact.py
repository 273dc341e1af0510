"""Documents that a reader would call the same are the same, and no others."""

import pytest

from kindling_dataprep.steps.exact import exact_duplicates, text_digest


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


def test_the_first_of_equal_documents_stays() -> None:
    ids = ["a", "b", "c", "d", "e"]
    assert exact_duplicates(ids, [b"1", b"2", b"1", b"1", b"2"]) == {"c": "a", "d": "a", "e": "b"}


def test_without_equal_documents_nothing_is_removed() -> None:
    assert exact_duplicates(["a", "b"], [b"1", b"2"]) == {}
