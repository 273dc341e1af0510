"""What a word is, said once for the quality rules and once for deduplication.

For quality a word is a run of characters between Unicode white space (`str.split`), as in Dolma; the Gopher paper does
not say. Punctuation stays on its word (`the,` is not the stop word `the`). For deduplication neither case nor
punctuation count, as in datatrove: a word is a run of letters, digits and underscores with the marks on them. That is
UAX 29 but for what lies between two letters (`don't`), which ends a word. Both cut runs at each character of a script
that is written without spaces (see `scripts`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindling_dataprep.steps.char_spans import Block, Hashes, Integers, blocks, by_code_point, edges, hashes_of
from kindling_dataprep.steps.languages import ENGLISH
from kindling_dataprep.steps.scripts import characters_per_word, cut, kinds, word_pattern

PLAIN_CHARACTERS = re.compile(r"\w+")

CharSpans = tuple[NDArray[Any], Integers, Integers]
"""Code points, and the places before each word in them and of its last character."""

_WHITE_SPACE = re.compile(r"\s")
_SPACE, _ALPHANUMERIC, _ALPHABETIC = 1, 2, 4
_SCRIPT = 3
"""The bits of a kind above these three say what the character is in its script."""


@dataclass(frozen=True)
class Words:
    """The words of many texts, laid end to end."""

    sources: Sequence[str]
    """The texts."""
    starts: Integers
    """[texts + 1] Where each text's words begin; the last entry is the number of words."""
    spans: Sequence[CharSpans]
    """What `hashes` are made of, some texts at a time."""
    lengths: Integers
    """[words] In characters."""
    offsets: Integers
    """[words] Where each begins in its text."""
    alphanumeric: NDArray[np.bool_]
    """[words] Whether it has a letter or digit (`str.isalnum`)."""
    alphabetic: NDArray[np.bool_]
    """[words] Whether it has a letter (`str.isalpha`)."""
    languages: Sequence[str]
    """The language of each text, whose rules it gets."""
    factors: Integers
    """[texts] How many words stand for one: 1, or in scripts without spaces, where a character is a word, more."""

    @functools.cached_property
    def hashes(self) -> Hashes:
        """[words] Equal for equal words."""
        return np.concatenate([np.empty(0, dtype=np.uint64), *(hashes_of(*spans) for spans in self.spans)])

    @functools.cached_property
    def texts(self) -> Integers:
        """[words] Each word's text."""
        return np.repeat(np.arange(len(self.sources), dtype=np.int64), np.diff(self.starts))

    @functools.cached_property
    def _distinct(self) -> tuple[Integers, Integers]:
        _, first, ids = np.unique(self.hashes, return_index=True, return_inverse=True)
        return first, ids

    @property
    def ids(self) -> Integers:
        """[words] Each word's position in the vocabulary."""
        return self._distinct[1]

    @functools.cached_property
    def vocabulary(self) -> list[str]:
        """Distinct words."""
        first = self._distinct[0]
        where = zip(self.texts[first].tolist(), self.offsets[first].tolist(), self.lengths[first].tolist(), strict=True)
        return [self.sources[text][offset : offset + length] for text, offset, length in where]


def words_of(text: str) -> list[str]:
    """The words of one text, for quality."""
    return text.split()


def plain_words_of(text: str) -> list[str]:
    """The words of one text, for deduplication, folded."""
    return word_pattern().findall("".join(map(folded, text)))


def folded(character: str) -> str:
    """Without its case, where that is one character (Unicode's simple case folding): `A` → `a`, `Σ` and `ς` → `σ`."""
    fold = character.casefold()
    return fold if len(fold) == 1 else character


def split_words(texts: Sequence[str], languages: Sequence[str] = ()) -> Words:
    """The words of many texts; this is the only tokenisation that measuring needs.

    Args:
        texts: Some documents.
        languages: Their languages; without, all are in English, whose words have spaces between them.
    """
    languages = languages or [ENGLISH] * len(texts)
    factors = factors_of(texts, languages)
    counts = np.zeros(len(texts), dtype=np.int64)
    spans: list[CharSpans] = []
    lengths, offsets = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    kinds = [np.empty(0, dtype=np.uint8)]
    ascii_kinds, all_kinds = _kinds()
    for block in blocks(texts, _WHITE_SPACE):
        codes, kind = by_code_point(block.joined(), ascii_kinds, all_kinds)
        before, last = _edges(kind, block, factors)
        numbers = block.counts(before)
        np.add.at(counts, block.owners, numbers)
        spans.append((codes, before, last))
        lengths.append(last - before)
        offsets.append(before + np.repeat(block.shifts(), numbers))
        kinds.append(np.bitwise_or.reduceat(kind, before + 1) if len(before) else kinds[0])
    kind = np.concatenate(kinds)
    return Words(
        sources=texts,
        starts=np.append(0, np.cumsum(counts)),
        spans=spans,
        lengths=np.concatenate(lengths),
        offsets=np.concatenate(offsets),
        alphanumeric=(kind & _ALPHANUMERIC) != 0,
        alphabetic=(kind & _ALPHABETIC) != 0,
        languages=languages,
        factors=factors,
    )


def factors_of(texts: Sequence[str], languages: Sequence[str]) -> Integers:
    """[texts] How many words stand for one in each; see `Words`."""
    pairs = zip(texts, languages, strict=True)
    each = (1 if language == ENGLISH else characters_per_word(text) for text, language in pairs)
    return np.fromiter(each, dtype=np.int64, count=len(texts))


def _edges(kind: NDArray[np.uint8], block: Block, factors: Integers) -> tuple[Integers, Integers]:
    """As `edges`, of what is no white space; the words of texts without spaces are cut as `scripts` says."""
    inside = (kind & _SPACE) == 0
    unspaced = [bool(factors[owner] > 1) for owner in block.owners]
    if not any(unspaced):
        return edges(inside)
    lengths = [len(piece) + 1 for piece in block.pieces]
    cuts = np.append(False, np.repeat(unspaced, lengths))  # after the line end that a block begins with
    return cut(inside, np.where(cuts, kind >> _SCRIPT, 0).astype(np.uint8))


@functools.cache
def _kinds() -> tuple[bytes, NDArray[np.uint8]]:
    """For each code point what it is; of the first 256 also as bytes."""
    table = np.zeros(0x110000, dtype=np.uint8)
    everything = "".join(map(chr, range(len(table))))
    for found in _WHITE_SPACE.finditer(everything):
        table[found.start()] = _SPACE
    for found in PLAIN_CHARACTERS.finditer(everything):  # `\w` is what is alphanumeric, and the underscore
        run = found.group()
        table[found.start() : found.end()] = [_ALPHANUMERIC | _ALPHABETIC * each.isalpha() for each in run]
    table[ord("_")] = 0
    table |= kinds() << _SCRIPT
    return table[:256].tobytes(), table
