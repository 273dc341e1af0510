"""Planted pairs of known similarity: at the default settings nearly all are found, and only what is similar enough."""

import sysconfig
from pathlib import Path

import numpy as np
import pytest

from kindling_api.v1alpha1.dataset_build import MinHash
from kindling_dataprep.steps.recall import PlantedPair, Recall, measure_recall, planted_pairs
from kindling_dataprep.steps.shingles import jaccards, shingles


def passages(count: int, words: int) -> list[str]:
    """Different passages of the standard library, which as a whole is real text with near-duplicates of its own."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = [word for path in paths[:150] for word in path.read_text(errors="replace").split()]
    return [" ".join(text[i * words : (i + 1) * words]) for i in range(count)]


PASSAGES = passages(320, 250)


@pytest.mark.parametrize("target", [0.5, 0.7, 0.8, 0.9, 0.98])
def test_planted_pairs_come_near_the_similarity_asked_for(target: float) -> None:
    pairs = planted_pairs(PASSAGES[:100], [target], seed=1)
    sets = shingles([text for pair in pairs for text in (pair.original, pair.altered)], 5)
    similarities = jaccards(sets, np.arange(2 * len(pairs)).reshape(-1, 2))
    assert np.mean(similarities) == pytest.approx(target, abs=0.03)
    assert np.std(similarities) < 0.05


def test_planting_is_repeatable() -> None:
    assert planted_pairs(PASSAGES[:9], [0.9], seed=1) == planted_pairs(PASSAGES[:9], [0.9], seed=1)
    assert planted_pairs(PASSAGES[:9], [0.9], seed=1) != planted_pairs(PASSAGES[:9], [0.9], seed=2)


@pytest.mark.parametrize("text", ["", "one", "one two three four five six"], ids=["no words", "one word", "six words"])
def test_even_the_shortest_text_can_be_planted(text: str) -> None:
    assert [pair.original for pair in planted_pairs([text] * 4, [0.5, 0.99], seed=1)] == [text] * 4


def test_recall_at_the_threshold_and_above_is_at_least_99_percent() -> None:
    measured = measure_recall(planted_pairs(PASSAGES, [0.82, 0.86, 0.9, 0.95], seed=1), MinHash())
    assert measured.duplicates >= 300
    assert measured.recall >= 0.99
    assert measured.precision == 1.0


LETTERS = {
    "Chinese": "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对",
    "Japanese": "のにをはたがでてとしれさあいうえおかきくけこアイウエオカキクケコ日本人年大学国中時間山川",
    "Thai": ["ก", "กำ", "ที่", "นี้", "เ", "ร", "ม", "ว", "ส", "อ", "ปี", "คุ", "ช", "ต้", "บ", "พ", "ย", "ล", "ห", "า"],
    "Arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "Hindi": ["क", "के", "की", "र", "रा", "म", "में", "न", "ने", "स", "से", "त", "ति", "प", "ह", "है", "ज", "ल", "ला"],
}
SPACED = ("Arabic", "Hindi")


@pytest.mark.parametrize("language", LETTERS)
def test_recall_is_the_same_in_any_script(language: str) -> None:
    generator = np.random.default_rng(7)
    letters = generator.choice(list(LETTERS[language]), size=(120, 400, 4 if language in SPACED else 1))
    between = " " if language in SPACED else ""
    texts = [between.join("".join(word) for word in text) + "。" for text in letters]
    measured = measure_recall(planted_pairs(texts, [0.82, 0.86, 0.9, 0.95], seed=1), MinHash())
    assert measured.duplicates >= 110
    assert measured.recall >= 0.99
    assert measured.precision == 1.0


def test_pairs_below_the_threshold_are_proposed_and_then_thrown_away() -> None:
    measured = measure_recall(planted_pairs(PASSAGES, [0.5, 0.6, 0.7, 0.9], seed=1), MinHash())
    assert measured.candidates > 1.3 * measured.reported
    assert measured.precision == 1.0
    assert measured.recall >= 0.99


def test_bands_too_narrow_for_the_threshold_show_as_a_low_recall() -> None:
    measured = measure_recall(planted_pairs(PASSAGES, [0.82], seed=1), MinHash(bands=9, rows=13))
    assert 0.2 < measured.recall < 0.8


def test_without_planted_pairs_nothing_is_missed() -> None:
    assert measure_recall([], MinHash()) == Recall(duplicates=0, found=0, candidates=0, reported=0)
    assert measure_recall([PlantedPair("one text", "another one")], MinHash()).recall == 1.0
