"""What is taken for pornography, and what only sounds like it."""

import sysconfig
from pathlib import Path

import pytest

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.filters import Adult, Filter
from kindling_dataprep.build import build
from kindling_dataprep.steps.adult import LEXICON, SITES, domains_in, fetch
from kindling_dataprep.steps.decide import decide
from kindling_dataprep.steps.measure import measure
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import open_store

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


def test_a_page_of_a_site_counts_as_a_link_to_it() -> None:
    table = measure(["One.", "Two.", "Three."], FILTERS, urls=["https://a.xxx/b", "https://a.org/xxx", ""])
    assert table["adult.siteLinks"].to_pylist() == [1, 0, 0]


def test_domains_of_a_list_of_ones_own_count_too(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# mine\nBad.Example.org # the worst\n\nwww.worse.net\n")
    sites = SITES | domains_in(fetch(str(tmp_path / "list.txt"), open_store), "here")
    links = [
        "http://bad.example.org/",
        "http://more.bad.example.org",
        "http://example.org",
        "www.worse.net",
        "http://a.xxx",
    ]
    assert measure(links, FILTERS, sites=sites)["adult.siteLinks"].to_pylist() == [1, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "nothing at"),
        ("a.org\nhttp://b.org/\n", "'http://b.org/' in line 2 of"),
        ("0.0.0.0 a.org", "'0.0.0.0 a.org' in line 1"),
    ],
    ids=["nothing", "a link", "a hosts file"],
)
def test_what_is_no_list_is_refused(tmp_path: Path, content: str | None, found: str) -> None:
    if content is not None:
        (tmp_path / "list.txt").write_text(content)
    with pytest.raises(SpecError) as caught:
        fetch(str(tmp_path / "list.txt"), open_store)
    assert found in str(caught.value)


def test_a_build_uses_the_list_and_another_list_is_another_dataset(tmp_path: Path, new_run) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "one", "url": "http://bad.org/"}\n{"text": "two", "url": "http://good.org"}\n'
    )
    digests = set()
    for domains, removed in (("bad.org", {"adult": 1}), ("worse.org", {})):
        (tmp_path / "list.txt").write_text(domains)
        filters = [{"adult": {"blocklist": str(tmp_path / "list.txt")}}]
        result = build(
            new_run(tmp_path / "a.jsonl", filters=filters, tokenizer={"byte": {}}), Tracker(ProgressWriter(None))
        )
        assert result.documents.removed == removed
        digests.add(result.digest)
    assert len(digests) == 2
