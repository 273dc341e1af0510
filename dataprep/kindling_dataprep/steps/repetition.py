"""How much of a text repeats itself: the measures of Gopher's repetition rules.

Rae et al. 2021 (arXiv:2112.11446), appendix A.1.1 and table A1, in datatrove's reading of it. N-grams are counted for
many texts at once and exactly, without a hash: an n-gram is numbered from the number of its first n - 1 words and its
last word, and only positions whose (n-1)-gram occurs twice in the text are looked at, which in most texts are few.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kindling_dataprep.steps.quality import Floats, Integers, duplicates, fraction
from kindling_dataprep.steps.words import Words

TOP_N_GRAMS = (2, 3, 4)
DUPLICATE_N_GRAMS = (5, 6, 7, 8, 9, 10)

_LINE_ENDS = re.compile("\n+")
_PARAGRAPH_ENDS = re.compile("\n{2,}")


def gopher_repetition(texts: Sequence[str], words: Words) -> dict[str, Integers | Floats]:
    """Fractions of lines, paragraphs and characters that repeat.

    Lines lie between runs of line feeds, paragraphs between runs of two or more in the stripped text. Fractions of
    characters are of the whole text. The most frequent n-gram counts with the spaces inside it and for every time it
    occurs, once included; where several are equally frequent, the first. Repeated n-grams count without spaces from
    their second occurrence on, and what one of them covers is not looked at again. N-grams are compared word by word
    (datatrove compares the words run together, and so takes `ab c` for `a bc`).
    """
    characters = np.fromiter(map(len, texts), dtype=np.int64)
    lines = _pieces("Line", [_LINE_ENDS.split(text) for text in texts], characters)
    paragraphs = _pieces("Paragraph", [_PARAGRAPH_ENDS.split(text.strip()) for text in texts], characters)
    return lines | paragraphs | _n_grams(words, characters)


def _pieces(unit: str, pieces: list[list[str]], characters: Integers) -> dict[str, Integers | Floats]:
    repeated = np.array([duplicates(each) for each in pieces], dtype=np.int64).reshape(-1, 2)
    total = np.fromiter(map(len, pieces), dtype=np.int64)
    return {
        f"duplicate{unit}Fraction": fraction(repeated[:, 0], total),
        f"duplicate{unit}CharacterFraction": fraction(repeated[:, 1], characters),
    }


def _n_grams(words: Words, characters: Integers) -> dict[str, Integers | Floats]:
    columns: dict[str, Integers | Floats] = {}
    lengths = np.fromiter(map(len, words.vocabulary), dtype=np.int64)
    before = np.append(0, np.cumsum(lengths[words.ids]))
    grams = _single_words(words)
    while grams.n < max(DUPLICATE_N_GRAMS):
        grams = _longer(grams, words)
        if grams.n in TOP_N_GRAMS:
            top = _top_characters(grams, words, before)
            columns[f"top{grams.n}GramCharacterFraction"] = fraction(top, characters)
        if grams.n in DUPLICATE_N_GRAMS:
            repeated = _repeated_characters(grams, words, before)
            columns[f"duplicate{grams.n}GramCharacterFraction"] = fraction(repeated, characters)
    return columns


@dataclass(frozen=True)
class _Grams:
    """The n-grams that occur more than once in their text."""

    n: int
    positions: Integers
    """[grams] The position of each one's first word, ascending."""
    groups: Integers
    """[grams] A number that is the same for equal n-grams of one text, and for no others."""


def _single_words(words: Words) -> _Grams:
    positions = np.arange(len(words.ids), dtype=np.int64)
    return _those_repeated(1, positions, words.texts * len(words.vocabulary) + words.ids)


def _longer(grams: _Grams, words: Words) -> _Grams:
    """The repeated (n+1)-grams; each begins with a repeated n-gram."""
    ends = grams.positions + grams.n
    inside = ends < words.starts[words.texts[grams.positions] + 1]
    keys = grams.groups[inside] * len(words.vocabulary) + words.ids[ends[inside]]
    return _those_repeated(grams.n + 1, grams.positions[inside], keys)


def _those_repeated(n: int, positions: Integers, keys: Integers) -> _Grams:
    _, groups, counts = np.unique(keys, return_inverse=True, return_counts=True)
    repeated = counts[groups] > 1
    return _Grams(n, positions[repeated], groups[repeated])


def _top_characters(grams: _Grams, words: Words, before: Integers) -> Integers:
    """[texts] Characters in all occurrences of each text's most frequent n-gram, spaces inside it included.

    `before` [words + 1] are the characters of all words before each one.
    """
    has_any = np.diff(words.starts) >= grams.n
    position = words.starts[:-1].copy()  # where nothing repeats, the first n-gram is as frequent as any
    times = has_any.astype(np.int64)
    _, firsts, counts = np.unique(grams.groups, return_index=True, return_counts=True)
    found = grams.positions[firsts]
    order = np.lexsort((found, -counts, words.texts[found]))
    texts, best = np.unique(words.texts[found][order], return_index=True)
    position[texts] = found[order][best]
    times[texts] = counts[order][best]
    end = np.where(has_any, position + grams.n, position)
    return times * (before[end] - before[position] + grams.n - 1)


def _repeated_characters(grams: _Grams, words: Words, before: Integers) -> Integers:
    """[texts] Characters in n-grams that occurred before, going through each text from its beginning."""
    seen: set[int] = set()
    covered = []
    next_free = 0
    for position, group in zip(grams.positions.tolist(), grams.groups.tolist(), strict=True):
        if position < next_free:
            continue
        if group in seen:
            covered.append(position)
            next_free = position + grams.n
        seen.add(group)
    starts = np.array(covered, dtype=np.int64)
    characters = np.zeros(len(words.starts) - 1, dtype=np.int64)
    np.add.at(characters, words.texts[starts], before[starts + grams.n] - before[starts])
    return characters
