"""What is taken for pornography, and what only sounds like it."""

import sysconfig
from pathlib import Path

import pytest

from kindling_api.v1alpha1.filters import Adult, Filter
from kindling_dataprep.steps.adult import LEXICON, SITES
from kindling_dataprep.steps.decide import decide
from kindling_dataprep.steps.measure import measure

FILTERS = [Filter(adult=Adult())]


@pytest.mark.parametrize(
    ("link", "counted"),
    [
        ("https://www.pornhub.com/view?id=1", 1),
        ("http://de.xvideos.com", 1),
        ("(www.XNXX.com)", 1),
        ("https://user@anything.xxx/", 1),
        ("https://notpornhub.com", 0),
        ("https://pornhub.com.example.org", 0),
        ("https://www.essex.ac.uk", 0),
        ("https://example.org/pornhub.com", 0),
        ("pornhub.com", 0),
    ],
)
def test_a_link_counts_by_its_domain(link: str, counted: int) -> None:
    assert measure([f"See {link} there."], FILTERS)["adult.siteLinks"].to_pylist() == [counted]


@pytest.mark.parametrize(
    ("kept", "removed"),
    [
        pytest.param(
            "Porn is a word, and smut is another.", "Porn is a word, smut and XXX too.", id="two words and three"
        ),
        pytest.param(
            "Breast cancer, sex education, the cock crew thrice.", "Hot sluts! Tits! Porn!", id="ordinary words"
        ),
        pytest.param("Scunthorpe, a cumulative button, titular.", "cum, tits, cunt", id="parts of words"),
    ],
)
def test_words_count_whole_and_together(kept: str, removed: str) -> None:
    assert [decision is None for decision in decide(measure([kept, removed], FILTERS), FILTERS)] == [True, False]


def test_the_standard_library_is_not_adult() -> None:
    texts = [file.read_text(errors="replace") for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))]
    assert not any(decide(measure(texts, FILTERS), FILTERS))


def test_lexicon_and_sites_are_as_they_are_compared() -> None:
    assert LEXICON
    assert all(word == word.lower() and word.isalpha() for word in LEXICON)
    assert all(site == site.lower() and "/" not in site for site in SITES)
