"""What counts as a link, a keyword, a telephone number, a price or bait, and what does not."""

import sysconfig
from pathlib import Path

import pytest

from kindling_api.v1alpha1.filters import Filter, Spam
from kindling_dataprep.steps.decide import decide
from kindling_dataprep.steps.measure import measure

FILTERS = [Filter(spam=Spam())]


@pytest.mark.parametrize(
    ("measured", "one", "counted"),
    [
        ("linkFraction", "https://a.org", 1),
        ("linkFraction", "[here](http://a.org/b)", 1),
        ("linkFraction", "WWW.A.ORG", 1),
        ("linkFraction", "httpd", 0),
        ("linkFraction", "awww.", 0),
        ("keywordFraction", "“Casino!”", 1),
        ("keywordFraction", "the", 0),
        ("keywordFraction", "self.value", 0),
        ("keywordFraction", "2024", 0),
        ("phonePriceFraction", "+49 (30) 901820", 3),
        ("phonePriceFraction", "(555)123-4567", 1),
        ("phonePriceFraction", "555.123.4567", 1),
        ("phonePriceFraction", "192.168.100.2000", 0),
        ("phonePriceFraction", "1990-1995", 0),
        ("phonePriceFraction", "$1,299.00", 1),
        ("phonePriceFraction", "99 EUR", 2),
        ("phonePriceFraction", "99 EUROPEANS", 0),
        ("phonePriceFraction", "1 + 2 = 3", 0),
        ("baitFraction", "BUY NOW", 1),
        ("baitFraction", "buy it now", 0),
    ],
)
def test_each_kind_counts_words_of_its_own(measured: str, one: str, counted: int) -> None:
    text = " | ".join([one] * 6)
    (value,) = measure([text], FILTERS)[f"spam.{measured}"].to_pylist()
    assert value == 6 * counted / len(text.split())


@pytest.mark.parametrize("one", ["www.a.org", "pills", "$1", "buy now"])
def test_four_are_no_flood_and_five_are(one: str) -> None:
    decisions = decide(measure([" ".join([one] * 4), " ".join([one] * 5)], FILTERS), FILTERS)
    assert [decision is None for decision in decisions] == [True, False]


def test_the_standard_library_is_no_spam() -> None:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [file.read_text(errors="replace") for file in files]
    removed = [file.name for file, why in zip(files, decide(measure(texts, FILTERS), FILTERS), strict=True) if why]
    assert len(removed) <= len(files) // 50
