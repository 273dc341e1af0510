"""Measures of single words and lines: Gopher's quality rules and FineWeb's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from kindling_dataprep.steps.languages import ENGLISH, INSIDE, STOP_WORDS, language_rules
from kindling_dataprep.steps.sentences import ends_sentence
from kindling_dataprep.steps.words import Words, split_words, words_of

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_BULLETS = ("•", "-")
_ELLIPSES = ("...", "…")
TERMINAL_PUNCTUATION = (".", "'", '"', "!", "?")
_PUNCTUATION = frozenset(TERMINAL_PUNCTUATION)
_SHORT_LINE = 30
"""Characters."""


def gopher_quality(texts: Sequence[str], words: Words) -> dict[str, Integers | Floats]:
    """Rae et al. 2021 (arXiv:2112.11446), appendix A.1.1, in datatrove's reading of it.

    `words` and `meanWordLength` (in characters) look only at words with a letter or digit (`str.isalnum`; datatrove
    has a list of symbols instead). The fractions of hashes, ellipses and words with a letter (`str.isalpha`) are of
    all words, those of lines of all lines (`str.splitlines`). Stop words, of each text's language, are counted once
    each, in lower case. In scripts without spaces some characters stand for a word, as `Words.factors` says.
    """
    total, factors = np.diff(words.starts), words.factors
    counted_total = sums(words, words.alphanumeric)
    lines = [text.splitlines() for text in texts]
    line_total = counts(map(len, lines))
    bullets = counts(sum([line.lstrip().startswith(_BULLETS) for line in each]) for each in lines)
    ellipses = counts(map(_lines_with_ellipsis, texts, lines))
    return {
        "words": counted_total // factors,
        "meanWordLength": fraction(factors * sums(words, words.lengths * words.alphanumeric), counted_total),
        "hashFraction": fraction(factors * counts(text.count("#") for text in texts), total),
        "ellipsisFraction": fraction(factors * counts(map(_ellipses, texts)), total),
        "bulletLineFraction": fraction(bullets, line_total),
        "ellipsisLineFraction": fraction(ellipses, line_total),
        "alphabeticWordFraction": fraction(sums(words, words.alphabetic), total),
        "stopWords": _distinct_stop_words(words),
    }


def fine_web(texts: Sequence[str], words: Words) -> dict[str, Integers | Floats]:
    """Penedo et al. 2024 (FineWeb, arXiv:2406.17557), section 3.6, as in datatrove.

    Lines are what lies between line feeds and is not blank; the fraction of characters is of all but the line feeds.
    In other languages than English a line is punctuated where it ends a sentence (see `sentences`).
    """
    columns = np.array(list(map(_lines, texts, words.languages)), dtype=np.int64).reshape(-1, 6).T
    total, newlines, punctuated, short, repeated, characters = columns
    return {
        "punctuatedLineFraction": fraction(punctuated, total),
        "duplicateLineCharacterFraction": fraction(repeated, characters - newlines),
        "shortLineFraction": fraction(short, total),
        "newlinesPerWord": fraction(words.factors * newlines, np.diff(words.starts)),
    }


def fraction(part: Integers, whole: Integers) -> Floats:
    """part / whole, and 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(len(part), dtype=np.float64), where=whole != 0)


def of_words(words: Words, property_of: Callable[[str], int]) -> Integers:
    """[words] A property of each word, computed once for each distinct one."""
    values: Integers = counts(map(property_of, words.vocabulary))[words.ids]
    return values


def sums(words: Words, values: NDArray[np.int64 | np.bool_]) -> Integers:
    """[texts] The sum over each text's words of `values` [words]."""
    running = np.append(0, np.cumsum(values, dtype=np.int64))
    sums: Integers = running[words.starts[1:]] - running[words.starts[:-1]]
    return sums


def _lines(text: str, language: str) -> tuple[int, int, int, int, int, int]:
    """(lines, line feeds, punctuated lines, short ones, characters of lines that occurred before, all characters)."""
    pieces = text.split("\n")
    lines = [line for line in pieces if line and not line.isspace()]
    lengths = list(map(len, lines))
    if language == ENGLISH:
        punctuated = sum([line[-1] in _PUNCTUATION for line in lines])
    else:
        punctuated = sum(map(ends_sentence, lines))
    short = sum([length <= _SHORT_LINE for length in lengths])
    repeated = sum(lengths) - sum(map(len, set(lines)))
    return len(lines), len(pieces) - 1, punctuated, short, repeated, len(text)


def _ellipses(text: str) -> int:
    return sum(map(text.count, _ELLIPSES))


def _lines_with_ellipsis(text: str, lines: list[str]) -> int:
    return sum([line.rstrip().endswith(_ELLIPSES) for line in lines]) if _ellipses(text) else 0


def _distinct_stop_words(words: Words) -> Integers:
    """[texts] How many of the stop words each text holds."""
    held = np.zeros((len(STOP_WORDS), len(words.sources)), dtype=bool)
    for number, stop_word in enumerate(split_words(STOP_WORDS).hashes):
        held[number, words.texts[words.hashes == stop_word]] = True
    held_by_text: Integers = held.sum(axis=0, dtype=np.int64)
    for number, language in enumerate(words.languages):
        if language != ENGLISH:
            held_by_text[number] = _stop_words_of(words.sources[number], language)
    return held_by_text


def _stop_words_of(text: str, language: str) -> int:
    stop_words = language_rules()[language].stop_words
    if language in INSIDE:
        return sum(word in text for word in stop_words)
    return len(stop_words.intersection(words_of(text)))


def counts(values: Iterable[int]) -> Integers:
    return np.fromiter(values, dtype=np.int64)
