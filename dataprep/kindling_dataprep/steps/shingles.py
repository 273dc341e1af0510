"""Word shingles of many texts at once, as 64-bit hashes: no loop over words, and no string for any of them.

A shingle is a run of consecutive words (Broder 1997, "On the resemblance and containment of documents"); a word is what
`plain_words_of` says, which in scripts without spaces is a character. The hash of a shingle is a polynomial in those of
its words, mixed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from scipy.sparse import csr_array

from kindling_dataprep.steps.char_spans import Hashes, Integers, blocks, by_code_point, edges, hashes_of
from kindling_dataprep.steps.scripts import EXTEND, bases, cut, kinds
from kindling_dataprep.steps.words import PLAIN_CHARACTERS, folded, plain_words_of
from kindling_runtime.splitmix import mix

_NEXT_WORD = np.uint64(0xD6E8FEB86659FD93)
_WHITE_SPACE = re.compile(r"\s")
_KIND = 24
"""The bits of a table of characters above this one say what they are in their scripts; code points have 21 bits."""


@dataclass(frozen=True)
class Shingles:
    """The shingles of some texts, text after text; each text has at least one."""

    hashes: Hashes
    """[shingles] What a text repeats is there as often."""
    starts: Integers
    """[texts + 1] Where those of each text begin; the last entry is the number of shingles."""

    def of(self, text: int) -> Hashes:
        """The hashes of one text's shingles."""
        return self.hashes[self.starts[text] : self.starts[text + 1]]


def shingles(texts: Sequence[str], size: int) -> Shingles:
    """Each run of `size` consecutive words; a text with fewer words is, but for white space as it is, one shingle."""
    words, counts = word_hashes(texts)
    numbers = np.maximum(counts - size + 1, 1)
    starts = np.append(0, np.cumsum(numbers))
    is_short = counts < size
    hashes = np.empty(starts[-1], dtype=np.uint64)
    hashes[np.repeat(~is_short, numbers)] = _runs(words, counts, size)
    for number in np.flatnonzero(is_short).tolist():
        hashes[starts[number]] = xxhash.xxh3_64_intdigest(" ".join(texts[number].split()).encode())
    return Shingles(hashes, starts)


def shingle_set(text: str, size: int) -> set[str]:
    """The definition, without a hash: the set of the shingles of one text."""
    words = plain_words_of(text)
    if len(words) < size:
        return {" ".join(text.split())}
    return {" ".join(words[i : i + size]) for i in range(len(words) - size + 1)}


def jaccards(sets: Shingles, pairs: Integers) -> NDArray[np.float64]:
    """[pairs] |A ∩ B| / |A ∪ B| for each of the `pairs` [n, 2] of texts, whose shingles are taken as sets."""
    distinct, columns = np.unique(sets.hashes, return_inverse=True)
    shape = (len(sets.starts) - 1, len(distinct))
    holds = csr_array((np.ones(len(columns), dtype=np.int32), columns, sets.starts), shape=shape)
    holds.sum_duplicates()
    holds.data[:] = 1
    sizes = np.diff(holds.indptr)
    one, other = pairs[:, 0], pairs[:, 1]
    common = np.asarray(holds[one].multiply(holds[other]).sum(axis=1)).ravel()
    similarities: NDArray[np.float64] = common / (sizes[one] + sizes[other] - common)
    return similarities


def _runs(words: Hashes, counts: Integers, size: int) -> Hashes:
    """The hashes of all runs of `size` words that lie within one text."""
    number = max(0, len(words) - size + 1)
    hashes_of_runs = words[:number].copy()
    for offset in range(1, size):
        hashes_of_runs *= _NEXT_WORD
        hashes_of_runs += words[offset : offset + number]
    inside = np.ones(len(words), dtype=bool)
    begin_last = (np.cumsum(counts)[:, None] - np.arange(1, size)).ravel()  # runs that would reach into the next text
    inside[begin_last[begin_last >= 0]] = False
    return mix(hashes_of_runs[inside[:number]])


def word_hashes(texts: Sequence[str]) -> tuple[Hashes, Integers]:
    """([words], [texts]) The hash of each word, text after text, and how many words each text has."""
    counts = np.zeros(len(texts), dtype=np.int64)
    found = [np.empty(0, dtype=np.uint64)]
    ascii_letters, letters = _letters()
    for block in blocks(texts, _WHITE_SPACE):
        _, characters = by_code_point(block.joined(), ascii_letters, letters)
        codes, before, last = _found_words(characters)
        found.append(hashes_of(codes, before, last))
        np.add.at(counts, block.owners, block.counts(before))
    return np.concatenate(found), counts


def _found_words(characters: NDArray[Any]) -> tuple[NDArray[Any], Integers, Integers]:
    """(folded code points, and as `edges`) The words in characters, as `_letters` has them."""
    if characters.dtype == np.uint8 or characters.max() >> _KIND == 0:
        return characters, *edges(characters != 0)
    kind = (characters >> _KIND).astype(np.uint8)
    letters = (characters != 0) & (kind != EXTEND)
    inside = letters[bases(kind)]  # a mark belongs to a word where what it is on does
    return np.where(inside, characters & ((1 << _KIND) - 1), 0), *cut(inside, kind)


@functools.cache
def _letters() -> tuple[bytes, NDArray[np.uint32]]:
    """For each code point what it is folded to, 0 for what belongs to no word; of the first 256 also as bytes.

    Above the code point stands what the character is in its script; marks, which are folded to themselves, belong to
    words where they follow a letter.
    """
    table = np.zeros(0x110000, dtype=np.uint32)
    for found in PLAIN_CHARACTERS.finditer("".join(map(chr, range(len(table))))):
        table[found.start() : found.end()] = [ord(folded(character)) for character in found.group()]
    marks = np.flatnonzero(kinds() == EXTEND)
    table[marks] = marks
    return table[:256].astype(np.uint8).tobytes(), table | kinds().astype(np.uint32) << np.uint32(_KIND)
