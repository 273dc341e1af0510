"""Word shingles of many texts at once, as 64-bit hashes: no loop over words, and no string for any of them.

A shingle is a run of consecutive words (Broder 1997, "On the resemblance and containment of documents"); a word is what
`plain_words_of` says. The hash of a word is a polynomial in its code points modulo 2⁶⁴, and that of a shingle a
polynomial in those of its words, mixed. Words are found in blocks that stay in the processor's cache; there, each
character is multiplied by the power of its place in the block, and the power of the word's place is divided out
afterwards, which an odd base allows.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray
from scipy.sparse import csr_array

from kindling_dataprep.steps.mix import GOLDEN, mix
from kindling_dataprep.steps.words import PLAIN_WORD, folded, plain_words_of

Hashes = NDArray[np.uint64]
Integers = NDArray[np.int64]

BLOCK = 1 << 15
"""Characters."""
_INVERSE = np.uint64(pow(int(GOLDEN), -1, 1 << 64))
_NEXT_WORD = np.uint64(0xD6E8FEB86659FD93)
_NO_WORD_CHARACTER = re.compile(r"\W")


@dataclass(frozen=True)
class Shingles:
    """The shingles of some texts, text after text; each text has at least one."""

    hashes: Hashes
    """[shingles] What a text repeats is there as often."""
    starts: Integers
    """[texts + 1] Where those of each text begin; the last entry is the number of shingles."""

    def of(self, text: int) -> Hashes:
        """Those of one text."""
        return self.hashes[self.starts[text] : self.starts[text + 1]]


def shingles(texts: Sequence[str], size: int) -> Shingles:
    """Each run of `size` consecutive words; a text with fewer words is, but for white space as it is, one shingle."""
    words, counts = _words(texts)
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
    runs = words[:number].copy()
    for offset in range(1, size):
        runs *= _NEXT_WORD
        runs += words[offset : offset + number]
    inside = np.ones(len(words), dtype=bool)
    begin_last = (np.cumsum(counts)[:, None] - np.arange(1, size)).ravel()  # runs that would reach into the next text
    inside[begin_last[begin_last >= 0]] = False
    return mix(runs[inside[:number]])


def _words(texts: Sequence[str]) -> tuple[Hashes, Integers]:
    """([words], [texts]) The hash of each word, text after text, and how many words each text has."""
    counts = np.zeros(len(texts), dtype=np.int64)
    found = [np.empty(0, dtype=np.uint64)]
    for owners, pieces in _blocks(texts):
        hashes, numbers = _words_of_block(pieces)
        np.add.at(counts, owners, numbers)
        found.append(hashes)
    return np.concatenate(found), counts


def _blocks(texts: Sequence[str]) -> Iterator[tuple[list[int], list[str]]]:
    """The texts, together about BLOCK characters at a time, with the number of each one's text.

    A longer text comes in pieces that end with its words; only a word without end makes a longer piece.
    """
    owners: list[int] = []
    pieces: list[str] = []
    size = 0
    for owner, text in enumerate(texts):
        for piece in _pieces(text):
            owners.append(owner)
            pieces.append(piece)
            size += len(piece)
            if size >= BLOCK:
                yield owners, pieces
                owners, pieces, size = [], [], 0
    if pieces:
        yield owners, pieces


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > BLOCK:
        found = _NO_WORD_CHARACTER.search(text, start + BLOCK)
        end = found.start() if found else len(text)
        yield text[start:end]
        start = end
    yield text[start:]


def _words_of_block(pieces: list[str]) -> tuple[Hashes, Integers]:
    """([words], [pieces]) Their hashes, and how many words each piece has."""
    codes = _characters("\n".join(["", *pieces, ""]))
    is_word = codes != 0
    edges = np.flatnonzero(is_word[1:] != is_word[:-1])  # the places before a word, and of its last character
    first, last = edges[::2], edges[1::2]
    powers, inverses = _powers(-(-len(codes) // BLOCK) * BLOCK)
    sums = codes.astype(np.uint64)
    sums *= powers[: len(codes)]
    np.cumsum(sums, out=sums)
    ends = np.cumsum([len(piece) + 1 for piece in pieces])
    return (sums[last] - sums[first]) * inverses[first], np.diff(np.searchsorted(first, ends), prepend=0)


def _characters(text: str) -> NDArray[np.uint8 | np.uint32]:
    """The code points of a text, folded; 0 for what belongs to no word."""
    if text.isascii():
        return np.frombuffer(text.encode().translate(_ascii_characters()), np.uint8)
    return _all_characters().take(np.frombuffer(text.encode("utf-32-le"), np.uint32))


@functools.cache
def _ascii_characters() -> bytes:
    return _all_characters()[:256].astype(np.uint8).tobytes()


@functools.cache
def _all_characters() -> NDArray[np.uint32]:
    """[0x110000] What `_characters` gives for each code point."""
    table = np.zeros(0x110000, dtype=np.uint32)
    for found in PLAIN_WORD.finditer("".join(map(chr, range(len(table))))):
        table[found.start() : found.end()] = [ord(folded(character)) for character in found.group()]
    return table


@functools.lru_cache(maxsize=2)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """([count], [count]) 1, base, base², … modulo 2⁶⁴, and the inverse of each."""
    powers, inverses = np.full((2, count), [[GOLDEN], [_INVERSE]], dtype=np.uint64)
    powers[0] = inverses[0] = 1
    return np.multiply.accumulate(powers), np.multiply.accumulate(inverses)
