"""How much of a text repeats itself: the measures of Gopher's repetition rules.

Rae et al. 2021 (arXiv:2112.11446), appendix A.1.1 and table A1, in datatrove's reading of it. N-grams are counted for
many texts at once, by 64-bit hashes, and only positions whose (n-1)-gram occurs twice in the text are looked at, which
in most texts are few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kindling_dataprep.steps.char_spans import Hashes
from kindling_dataprep.steps.quality import Floats, Integers, fraction
from kindling_dataprep.steps.words import Words, split_words

TOP_N_GRAMS = (2, 3, 4)
DUPLICATE_N_GRAMS = (5, 6, 7, 8, 9, 10)

BLOCK = 1 << 15
"""Words that are sorted at a time, so that they stay in the processor's cache; a longer text is a block of its own."""

_FACTOR = np.uint64(0xD6E8FEB86659FD93)


def gopher_repetition(texts: Sequence[str], words: Words) -> dict[str, Integers | Floats]:
    """Fractions of lines, paragraphs and characters that repeat.

    Lines lie between runs of line feeds, paragraphs between runs of two or more in the stripped text. Fractions of
    characters are of the whole text. The most frequent n-gram counts with the spaces inside it and for every time it
    occurs, once included; where several are equally frequent, the first. Repeated n-grams count without spaces from
    their second occurrence on, and what one of them covers is not looked at again. N-grams are compared word by word
    (datatrove compares the words run together, and so takes `ab c` for `a bc`). In a text without spaces an n-gram has
    as many characters as stand for n words (see `scripts`).
    """
    characters = np.fromiter(map(len, texts), dtype=np.int64)
    lines = _pieces("Line", [_lines(text) for text in texts], characters)
    paragraphs = _pieces("Paragraph", [_paragraphs(text) for text in texts], characters)
    n_grams = _n_grams(words, characters, 1)
    for factor in set(words.factors.tolist()) - {1}:
        unspaced = np.flatnonzero(words.factors == factor).tolist()
        some = split_words([texts[row] for row in unspaced], [words.languages[row] for row in unspaced])
        for name, values in _n_grams(some, characters[unspaced], factor).items():
            n_grams[name][unspaced] = values
    return lines | paragraphs | n_grams


def _pieces(unit: str, pieces: list[list[str]], characters: Integers) -> dict[str, Integers | Floats]:
    repeated = np.array([_duplicates(each) for each in pieces], dtype=np.int64).reshape(-1, 2)
    total = np.fromiter(map(len, pieces), dtype=np.int64)
    return {
        f"duplicate{unit}Fraction": fraction(repeated[:, 0], total),
        f"duplicate{unit}CharacterFraction": fraction(repeated[:, 1], characters),
    }


def _duplicates(pieces: Sequence[str]) -> tuple[int, int]:
    """(number, characters) of the pieces that occurred before."""
    distinct = set(pieces)
    return len(pieces) - len(distinct), sum(map(len, pieces)) - sum(map(len, distinct))


def _lines(text: str) -> list[str]:
    """`re.split("\n+", text)`, faster: what lies between runs of line feeds, before the first and after the last."""
    inside = [line for line in text.split("\n") if line]
    return [""] * text.startswith("\n") + inside + [""] * text.endswith("\n") or [""]


def _paragraphs(text: str) -> list[str]:
    """`re.split("\n{2,}", text.strip())`, faster: of an odd number of line feeds one is left at the next paragraph."""
    return [piece.lstrip("\n") for piece in text.strip().split("\n\n") if piece] or [""]


def _n_grams(words: Words, characters: Integers, factor: int) -> dict[str, Floats]:
    """Fractions by name, from the characters in n-grams of `factor` · n words, which are counted block by block."""
    found = [_characters_in_n_grams(words, first, last, factor) for first, last in _blocks(words)]
    return {name: fraction(np.concatenate([each[name] for each in found]), characters) for name in found[0]}


def _blocks(words: Words) -> Iterator[tuple[int, int]]:
    """Consecutive texts (first, last) with about BLOCK words together; at least one block, which may be empty."""
    first = 0
    while True:
        last = int(np.searchsorted(words.starts, words.starts[first] + BLOCK))
        last = min(max(last, first + 1), len(words.sources))
        yield first, last
        if last == len(words.sources):
            return
        first = last


def _characters_in_n_grams(words: Words, first: int, last: int, factor: int) -> dict[str, Integers]:
    """By the name of the measure, [last - first] characters of these texts."""
    some = slice(words.starts[first], words.starts[last])
    starts = words.starts[first : last + 1] - words.starts[first]
    text = _Text(words.hashes[some], starts, words.texts[some] - first, np.append(0, np.cumsum(words.lengths[some])))
    columns: dict[str, Integers] = {}
    grams = _pairs(text)
    for n in range(2, max(DUPLICATE_N_GRAMS) + 1):
        while grams.n < n * factor:
            grams = _longer(grams, text)
        if n in TOP_N_GRAMS:
            columns[f"top{n}GramCharacterFraction"] = _top_characters(grams, text, n - 1 if factor == 1 else 0)
        if n in DUPLICATE_N_GRAMS:
            columns[f"duplicate{n}GramCharacterFraction"] = _repeated_characters(grams, text)
    return columns


@dataclass(frozen=True)
class _Text:
    """The words of the texts of a block."""

    hashes: Hashes
    """[words]"""
    starts: Integers
    """[texts + 1]"""
    texts: Integers
    """[words] Each word's text."""
    before: Integers
    """[words + 1] The characters of all words before each."""


@dataclass(frozen=True)
class _Grams:
    """The n-grams that occur more than once in their text."""

    n: int
    positions: Integers
    """[grams] The position of each one's first word, ascending."""
    groups: Integers
    """[grams] A number below `len(counts)` that is the same for equal n-grams of one text, and for no others."""
    counts: Integers
    """[groups] How often each occurs."""
    firsts: Integers
    """[groups] Its first position."""


def _pairs(text: _Text) -> _Grams:
    """The repeated 2-grams."""
    positions = np.flatnonzero(text.texts[1:] == text.texts[:-1])
    keys = (text.hashes[positions] + text.texts[positions].astype(np.uint64)) * _FACTOR + text.hashes[positions + 1]
    return _those_repeated(2, positions, keys)


def _longer(grams: _Grams, text: _Text) -> _Grams:
    """The repeated (n+1)-grams; each begins with a repeated n-gram."""
    ends = grams.positions + grams.n
    inside = ends < text.starts[text.texts[grams.positions] + 1]
    keys = grams.groups[inside].astype(np.uint64) * _FACTOR + text.hashes[ends[inside]]
    return _those_repeated(grams.n + 1, grams.positions[inside], keys)


def _those_repeated(n: int, positions: Integers, keys: Hashes) -> _Grams:
    order = np.argsort(keys)
    ordered = keys[order]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(keys)])
    counts = np.diff(begins, append=len(keys))
    repeated = counts > 1
    if not repeated.any():
        return _Grams(n, *(np.empty(0, dtype=np.int64) for _ in range(4)))
    group_of = np.full(len(keys), -1, dtype=np.int64)
    group_of[order] = np.repeat(np.where(repeated, np.cumsum(repeated) - 1, -1), counts)
    stays = group_of >= 0
    firsts = positions[np.minimum.reduceat(order, begins)[repeated]]
    return _Grams(n, positions[stays], group_of[stays], counts[repeated], firsts)


def _top_characters(grams: _Grams, text: _Text, spaces: int) -> Integers:
    """[texts] Characters in all occurrences of each text's most frequent n-gram, with the `spaces` inside it."""
    has_any = np.diff(text.starts) >= grams.n
    position = text.starts[:-1].copy()  # where nothing repeats, the first n-gram is as frequent as any
    times = has_any.astype(np.int64)
    order = np.lexsort((grams.firsts, -grams.counts, text.texts[grams.firsts]))
    texts, best = np.unique(text.texts[grams.firsts][order], return_index=True)
    position[texts] = grams.firsts[order][best]
    times[texts] = grams.counts[order][best]
    end = np.where(has_any, position + grams.n, position)
    return times * (text.before[end] - text.before[position] + spaces)


def _repeated_characters(grams: _Grams, text: _Text) -> Integers:
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
    characters = np.zeros(len(text.starts) - 1, dtype=np.int64)
    np.add.at(characters, text.texts[starts], text.before[starts + grams.n] - text.before[starts])
    return characters
