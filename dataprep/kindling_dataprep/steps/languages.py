"""What the rules of Gopher, FineWeb and C4 take for each language: its thresholds, stop words and ends of sentences.

Thresholds and stop words are FineWeb-2's (Penedo et al. 2025, arXiv:2506.20920, appendix; its `configs/*.yml` at commit
d0defb24 of github.com/huggingface/fineweb-2), which were set for each language by the distribution of the measure in
its Wikipedia and its web pages. They hold where a spec leaves a threshold at its default; one that it sets holds for
all languages. As there, short lines remove nothing outside English. English has the rules' own thresholds.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import regex
from numpy.typing import NDArray

ENGLISH = "en"
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Gopher's, of English."""
DEPENDENT = ("gopherQuality", "gopherRepetition", "c4", "fineWeb")
"""The rule sets that ask for a document's language."""

INSIDE = frozenset({"dz", "ja", "km", "ko", "lo", "my", "th", "zh"})
"""Where stop words are looked for inside of what lies between spaces: they are not written apart."""

UNPUNCTUATED = frozenset({"dz", "lo", "th"})
"""Where sentences end with no mark, so that no line can be asked for one."""

RELATED = {"ary": "ar", "arz": "ar", "gom": "mr", "uzs": "uz", "wuu": "zh", "yue": "zh"}
"""By the code of a language that has no thresholds of its own, that of the one whose it takes."""

SCRIPTS = {
    **{"Arabic": "ar", "Armenian": "hy", "Bengali": "bn", "Cyrillic": "ru", "Devanagari": "hi", "Ethiopic": "am"},
    **{"Georgian": "ka", "Greek": "el", "Gujarati": "gu", "Gurmukhi": "pa", "Han": "zh", "Hangul": "ko"},
    **{"Hebrew": "he", "Hiragana": "ja", "Kannada": "kn", "Katakana": "ja", "Khmer": "km", "Lao": "lo"},
    **{"Malayalam": "ml", "Myanmar": "my", "Oriya": "or", "Sinhala": "si", "Tamil": "ta", "Telugu": "te"},
    **{"Thai": "th", "Tibetan": "dz"},
}
"""By Unicode's name of a script, the language that a text in it is taken for where the model is in doubt."""

_KANA_FRACTION = 0.05
"""Of the letters of a text in Chinese characters; with more it is Japanese."""

_CHARACTERS_READ = 1000
_ENGLISH_FRACTION = 0.02


@dataclass(frozen=True)
class LanguageRules:
    """What one language has of its own."""

    stop_words: frozenset[str]
    thresholds: Mapping[tuple[str, str, bool], float]
    """By rule, measure, and whether it is a minimum."""


@functools.cache
def language_rules() -> dict[str, LanguageRules]:
    """By ISO 639 code; English has none of its own."""
    text = files("kindling_dataprep.steps").joinpath("lists", "fineweb-2.tsv").read_text()
    return {row["code"]: _rules(row) for row in csv.DictReader(text.splitlines(), delimiter="\t")}


def _rules(row: Mapping[str, str]) -> LanguageRules:
    thresholds = {("fineWeb", "shortLineFraction", False): 1.0}
    for name, value in row.items():
        side, measured = name[:3], name[3:4].lower() + name[4:]
        if side in ("min", "max"):
            thresholds[_rule_of(measured), measured, side == "min"] = float(value)
    return LanguageRules(frozenset(row["stopWords"].split(" ")), thresholds)


def _rule_of(measured: str) -> str:
    if measured in ("punctuatedLineFraction", "newlinesPerWord"):
        return "fineWeb"
    return "gopherRepetition" if measured.startswith(("top", "duplicate")) else "gopherQuality"


def is_plainly_english(text: str) -> bool:
    """Whether of what a text begins with every fiftieth word is one of Gopher's stop words, `the` or `and` among them.

    A model is not asked then, which takes a thousand times as long.
    """
    words = text[:_CHARACTERS_READ].lower().split()
    found = [word for word in words if word in STOP_WORDS]
    distinct = set(found)
    return (
        len(found) >= _ENGLISH_FRACTION * len(words) and len(distinct) > 1 and not distinct.isdisjoint(("the", "and"))
    )


def known_language(text: str, found: str, is_sure: bool) -> str:
    """The language whose rules a text gets: English where none is known, or none of its own rules are.

    Args:
        text: A document.
        found: The code that a model gave it.
        is_sure: Whether the model is sure; otherwise the script decides.
    """
    if not is_sure:
        found = _language_of_script(text[:_CHARACTERS_READ])
    found = RELATED.get(found, found)
    return found if found in language_rules() else ENGLISH


def _language_of_script(text: str) -> str:
    letters = "".join(filter(str.isalpha, text))
    if not letters or letters.isascii():
        return ENGLISH
    counts = np.bincount(_scripts().take(np.frombuffer(letters.encode("utf-32-le"), np.uint32)), minlength=len(SCRIPTS))
    of_script = dict(zip(SCRIPTS, counts[1:].tolist(), strict=False))
    if of_script["Hiragana"] + of_script["Katakana"] > _KANA_FRACTION * len(letters):
        return "ja"
    commonest = max(of_script, key=lambda script: of_script[script])
    return SCRIPTS[commonest] if 2 * of_script[commonest] > len(letters) else ENGLISH


@functools.cache
def _scripts() -> NDArray[np.uint8]:
    """[0x110000] For each code point the number of its script in SCRIPTS, from 1 on; 0 for others."""
    table = np.zeros(0x110000, dtype=np.uint8)
    everything = "".join(map(chr, range(len(table))))
    for number, script in enumerate(SCRIPTS, start=1):
        for found in regex.finditer(rf"\p{{Script={script}}}+", everything):
            table[found.start() : found.end()] = number
    return table
