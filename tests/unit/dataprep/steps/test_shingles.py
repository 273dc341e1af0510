"""Shingles of many texts at once are those of each text alone, by their definition."""

import sysconfig
from pathlib import Path

import numpy as np
import pytest
import regex
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from kindling_dataprep.steps import char_spans
from kindling_dataprep.steps.shingles import Shingles, jaccards, shingle_set, shingles
from kindling_dataprep.steps.words import plain_words_of

LICENCES = Path("/usr/share/common-licenses")
MASK = (1 << 64) - 1
UNSPACED = (
    r"[\p{Ideographic}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Bopomofo}\u3005\u30fc\uff70"
    r"\p{LB=SA}\p{LB=AK}\p{LB=AS}\p{Script=Tibetan}]"
)
SCRIPTS = "aB_é字かカーกิ์ำक्षिမြန်\u200d\u0301\xad \n.ßİς\ufe0f❤1ﾞ"


def mixed(value: int) -> int:
    """The finaliser of SplitMix64."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def hashes_as_defined(text: str, size: int) -> list[int]:
    words = words_as_defined("".join(c.casefold() if len(c.casefold()) == 1 else c for c in text))
    if len(words) < size:
        return [xxhash.xxh3_64_intdigest(" ".join(text.split()).encode())]
    numbers = []
    for word in words:
        power, total = 1, 0
        for character in word:
            power = power * 0x9E3779B97F4A7C15 & MASK
            total += (ord(character) + 1) * power
        numbers.append(total & MASK)
    found = []
    for i in range(len(words) - size + 1):
        total = 0
        for number in numbers[i : i + size]:
            total = total * 0xD6E8FEB86659FD93 + number & MASK
        found.append(mixed(total))
    return found


def words_as_defined(text: str) -> list[str]:
    """Character by character: a mark goes with what it is on, and a character of some scripts is a word."""
    words: list[str] = []
    state = "outside"
    for character in text:
        if not character.isalnum() and regex.match(r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]", character):
            if state != "outside":
                words[-1] += character
            continue
        before = state
        state = "outside"
        if character.isalnum() and regex.match(UNSPACED, character):
            state = "alone"
        elif character.isalnum() or character == "_":
            state = "run"
        if state == "run" and before == "run":
            words[-1] += character
        elif state != "outside":
            words.append(character)
    return words


def assert_as_defined(texts: list[str], size: int) -> None:
    found = shingles(texts, size)
    assert [found.of(number).tolist() for number in range(len(texts))] == [
        hashes_as_defined(text, size) for text in texts
    ]


def jaccard(one: str, other: str, size: int) -> float:
    return float(jaccards(shingles([one, other], size), np.array([[0, 1]]))[0])


def test_shingles_of_the_standard_library_are_as_defined() -> None:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:6]
    assert_as_defined([file.read_text(errors="replace") for file in files], 5)


@given(st.lists(st.text(st.sampled_from(SCRIPTS)) | st.text(), max_size=6), st.integers(1, 6))
@settings(max_examples=120, deadline=None)
def test_shingles_of_any_texts_are_as_defined(texts: list[str], size: int) -> None:
    assert_as_defined(texts, size)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's a pre-war re\xadport, n'est-ce pas?", "it s a pre war re\xadport n est ce pas"),
        ("தமிழ்நாட்டின் தலைநகரம் சென்னை ஆகும்.", "தமிழ்நாட்டின் தலைநகரம் சென்னை ஆகும்"),
        ("भारत की राजधानी नई दिल्ली है।", "भारत की राजधानी नई दिल्ली है"),
        ("من می‌خواهم بروم؟", "من می‌خواهم بروم"),
        ("대한민국의 수도는 서울이다.", "대한민국의 수도는 서울이다"),
        ("我用Python 3写了2个程序。", "我 用 python 3 写 了 2 个 程 序"),
        ("コーヒーを飲む人々", "コ ー ヒ ー を 飲 む 人 々"),
        ("ที่กรุงเทพ ฯ", "ที่ ก รุ ง เ ท พ ฯ"),
        ("ມື້ນີ້", "ມື້ ນີ້"),
        ("ភាសាខ្មែរ", "ភា សា ខ្ មែ រ"),
        ("မြန်မာ", "မြ န် မာ"),
    ],
    ids=["English", "Tamil", "Hindi", "Persian", "Korean", "Chinese", "Japanese", "Thai", "Lao", "Khmer", "Burmese"],
)
def test_a_word_has_its_marks_and_is_a_character_where_no_spaces_are(text: str, words: str) -> None:
    assert plain_words_of(text) == words_as_defined(text.lower()) == words.split(" ")


@pytest.mark.parametrize("block", [1, 7, 64])
def test_where_a_block_ends_makes_no_difference(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["one two three, four five six seven", "", "x" * 200 + " y z", "a  b", " c d e f g "]
    monkeypatch.setattr(char_spans, "BLOCK", block)
    assert_as_defined(texts, 2)


@pytest.mark.parametrize(
    ("text", "same"),
    [("", " \n"), ("one two!", "one\ttwo!"), ("one two three four five", "One (two)  three, four five.")],
    ids=["no words", "fewer words than a shingle", "one shingle"],
)
def test_a_text_shorter_than_a_shingle_is_one_shingle(text: str, same: str) -> None:
    found = shingles([text, same], 5)
    assert found.starts.tolist() == [0, 1, 2]
    assert found.of(0) == found.of(1)


def test_texts_without_words_are_alike_only_where_they_are_equal() -> None:
    assert jaccard("{ } ;", "[ ] ;", 5) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [
        ("a b c d", "a b c d", 1.0),
        ("a b c d", "w x y z", 0.0),
        ("a b c d e", "a b c d x", 0.6),  # ab bc cd | de dx
        ("a a a a", "a a", 1.0),  # sets: how often a shingle occurs does not count
    ],
    ids=["equal", "disjoint", "three of five", "repetition"],
)
def test_jaccard_is_the_share_of_common_shingles(one: str, other: str, similarity: float) -> None:
    assert jaccard(one, other, 2) == similarity


def test_without_pairs_there_is_nothing_to_compare() -> None:
    nothing = Shingles(np.empty(0, np.uint64), np.zeros(1, np.int64))
    assert jaccards(nothing, np.empty((0, 2), np.int64)).tolist() == []


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=12).map(" ".join), min_size=2, max_size=5))
@settings(max_examples=60, deadline=None)
def test_jaccard_by_hashes_is_jaccard_by_words(texts: list[str]) -> None:
    pairs = [(i, j) for i in range(len(texts)) for j in range(len(texts)) if i != j]
    sets = [shingle_set(text, 3) for text in texts]
    true = [len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in pairs]
    assert jaccards(shingles(texts, 3), np.array(pairs)).tolist() == true


@pytest.mark.skipif(not (LICENCES / "GFDL-1.3").exists(), reason="the licence texts of Debian are not on this machine")
@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [("GFDL-1.2", "GFDL-1.3", 0.852), ("LGPL-2", "LGPL-2.1", 0.721), ("GPL-1", "GPL-2", 0.463)],
    ids=["GFDL", "LGPL", "GPL"],
)
def test_licences_are_as_similar_as_is_known(one: str, other: str, similarity: float) -> None:
    texts = [(LICENCES / name).read_text() for name in (one, other)]
    assert jaccard(*texts, 5) == pytest.approx(similarity, abs=0.0005)
