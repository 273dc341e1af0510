"""Every measure equals, to the last bit, a plain definition of it, on real and on contrived texts."""

import re
import string
import sysconfig
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindling_api.v1alpha1.filters import C4, Adult, Filter, FineWeb, Formatting, GopherQuality, GopherRepetition, Spam
from kindling_dataprep.steps.adult import LEXICON, SITES
from kindling_dataprep.steps.measure import measure
from kindling_dataprep.steps.spam import BAIT_PHRASES

FILTERS = [
    Filter(gopher_quality=GopherQuality()),
    Filter(gopher_repetition=GopherRepetition()),
    Filter(c4=C4()),
    Filter(fine_web=FineWeb()),
    Filter(spam=Spam()),
    Filter(adult=Adult()),
]
LICENCES = Path("/usr/share/common-licenses")


@pytest.mark.slow
def test_measures_of_the_standard_library_are_as_defined() -> None:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:25]
    assert_as_defined([file.read_text(errors="replace") for file in files])


@pytest.mark.skipif(not LICENCES.is_dir(), reason="the licence texts of Debian are not on this machine")
def test_measures_of_licences_are_as_defined() -> None:
    assert_as_defined([file.read_text() for file in sorted(LICENCES.iterdir())])


@given(st.lists(st.text('abC1#.…-•\n\t \x0c\u2028é字"{', max_size=80), max_size=6))
@settings(max_examples=60, deadline=None)
def test_measures_of_repetitive_texts_are_as_defined(texts: list[str]) -> None:
    assert_as_defined(texts)


@given(st.lists(st.lists(st.sampled_from(["the", "cat", "sat", "..."]), max_size=60).map(" ".join), max_size=4))
@settings(max_examples=60, deadline=None)
def test_measures_of_repeated_n_grams_are_as_defined(texts: list[str]) -> None:
    assert_as_defined(texts)


@given(st.lists(st.text(max_size=200), max_size=4))
@settings(max_examples=60, deadline=None)
def test_measures_of_any_text_are_as_defined(texts: list[str]) -> None:
    assert_as_defined(texts)


def test_a_text_measures_the_same_alone_and_among_others() -> None:
    texts = ["the cat sat on the mat\nthe cat sat on the mat\n", "the cat sat", "", "on the mat the cat sat on"]
    together = measure(texts, FILTERS).to_pylist()
    assert together == [measure([text], FILTERS).to_pylist()[0] for text in texts]


def test_only_the_measures_asked_for_are_computed() -> None:
    table = measure(["some text"], [Filter(formatting=Formatting()), Filter(fine_web=FineWeb())])
    assert table.column_names == [
        "fineWeb.punctuatedLineFraction",
        "fineWeb.duplicateLineCharacterFraction",
        "fineWeb.shortLineFraction",
        "fineWeb.newlinesPerWord",
    ]


@pytest.mark.parametrize("texts", [[], ["one"], ["one", "two"]], ids=["no text", "one text", "two texts"])
def test_without_rules_there_is_a_row_for_each_text_all_the_same(texts: list[str]) -> None:
    assert measure(texts, []).num_rows == len(texts)


def assert_as_defined(texts: list[str]) -> None:
    expected = [
        gopher_quality(text) | gopher_repetition(text) | c4(text) | fine_web(text) | spam(text) | adult(text)
        for text in texts
    ]
    assert measure(texts, FILTERS).to_pylist() == expected


def gopher_quality(text: str) -> dict[str, float]:
    words = text.split()
    spoken = [word for word in words if any(character.isalnum() for character in word)]
    lines = text.splitlines()
    bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines)
    ellipses = sum(line.rstrip().endswith(("...", "…")) for line in lines)
    stop_words = {"the", "be", "to", "of", "and", "that", "have", "with"}
    return {
        "gopherQuality.words": len(spoken),
        "gopherQuality.meanWordLength": ratio(sum(len(word) for word in spoken), len(spoken)),
        "gopherQuality.hashFraction": ratio(text.count("#"), len(words)),
        "gopherQuality.ellipsisFraction": ratio(text.count("...") + text.count("…"), len(words)),
        "gopherQuality.bulletLineFraction": ratio(bullets, len(lines)),
        "gopherQuality.ellipsisLineFraction": ratio(ellipses, len(lines)),
        "gopherQuality.alphabeticWordFraction": ratio(sum(any(c.isalpha() for c in w) for w in words), len(words)),
        "gopherQuality.stopWords": len(stop_words.intersection(words)),
    }


def gopher_repetition(text: str) -> dict[str, float]:
    words = text.split()
    measures = {}
    for unit, pieces in (("Line", re.split("\n+", text)), ("Paragraph", re.split("\n{2,}", text.strip()))):
        repeated = [piece for i, piece in enumerate(pieces) if piece in pieces[:i]]
        measures[f"gopherRepetition.duplicate{unit}Fraction"] = ratio(len(repeated), len(pieces))
        measures[f"gopherRepetition.duplicate{unit}CharacterFraction"] = ratio(len("".join(repeated)), len(text))
    for n in (2, 3, 4):
        grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
        top, times = grams.most_common(1)[0] if grams else ("", 0)
        measures[f"gopherRepetition.top{n}GramCharacterFraction"] = ratio(len(top) * times, len(text))
    for n in (5, 6, 7, 8, 9, 10):
        characters = repeated_characters(words, n)
        measures[f"gopherRepetition.duplicate{n}GramCharacterFraction"] = ratio(characters, len(text))
    return measures


def repeated_characters(words: list[str], n: int) -> int:
    seen, characters, position = set(), 0, 0
    while position <= len(words) - n:
        gram = tuple(words[position : position + n])
        if gram in seen:
            characters += len("".join(gram))
            position += n
        else:
            seen.add(gram)
            position += 1
    return characters


def c4(text: str) -> dict[str, float]:
    sentences = 0
    for line in filter(str.strip, text.splitlines()):
        sentences += 1
        words = re.split(r"\s+", line.strip())
        for word in words[:-1]:
            last = word.rstrip("\"')]”’")
            sentences += last.endswith((".", "!", "?")) and not re.search(r"(\b\w|\b(Mrs?|Ms|Dr|St|vs))\.$", last)
    return {
        "c4.sentences": sentences,
        "c4.curlyBrackets": text.count("{"),
        "c4.loremIpsums": text.lower().count("lorem ipsum"),
    }


def fine_web(text: str) -> dict[str, float]:
    lines = [line for line in text.split("\n") if line.strip()]
    repeated = [line for i, line in enumerate(lines) if line in lines[:i]]
    punctuated = [line for line in lines if line.endswith((".", "'", '"', "!", "?"))]
    return {
        "fineWeb.punctuatedLineFraction": ratio(len(punctuated), len(lines)),
        "fineWeb.duplicateLineCharacterFraction": ratio(len("".join(repeated)), len(text.replace("\n", ""))),
        "fineWeb.shortLineFraction": ratio(sum(len(line) <= 30 for line in lines), len(lines)),
        "fineWeb.newlinesPerWord": ratio(text.count("\n"), len(text.split())),
    }


def spam(text: str) -> dict[str, float]:
    words = text.split()
    plain = [word.lower().strip(string.punctuation + "“”‘’„«»…–—") for word in words]
    keywords = Counter(word for word in plain if len(word) >= 4 and word.isalpha())
    times = {
        "linkFraction": sum(bool(re.search(r"(?i)(https?|ftp)://|\bwww\.", word)) for word in words),
        "keywordFraction": max(keywords.values(), default=0),
        "phonePriceFraction": sum(len(found.split()) for found in numbers_of_spam(text)),
        "baitFraction": sum(text.lower().count(phrase) for phrase in BAIT_PHRASES),
    }
    return {f"spam.{name}": ratio(count, len(words)) if count >= 5 else 0.0 for name, count in times.items()}


def numbers_of_spam(text: str) -> list[str]:
    international = r"\+\d[\d ().-]{7,17}\d(?![\d-])"
    american = r"(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4}(?![.-]?\w)"
    price = r"[$€£¥₹] ?\d[\d.,]*|\d[\d.,]* ?(?:[$€£¥₹]|USD\b|EUR\b|GBP\b)"
    return re.findall(rf"(?<![\w.+-])(?:{international}|{american}|{price})", text)


def adult(text: str) -> dict[str, float]:
    words = text.split()
    plain = [word.lower().strip(string.punctuation + "“”‘’„«»…–—") for word in words]
    found = sum(word in LEXICON for word in plain)
    hosts = re.findall(r"(?i)(?:https?://|\bwww\.)(?:[^\s/@]*@)?(?:www\.)?([\w-]+(?:\.[\w-]+)+)", text)
    links = sum(any(host.lower() == site or host.lower().endswith("." + site) for site in SITES) for host in hosts)
    return {"adult.lexiconFraction": ratio(found, len(words)) if found >= 3 else 0.0, "adult.siteLinks": links}


def ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
