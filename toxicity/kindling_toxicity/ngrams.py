"""Hashed n-grams of many texts at once: of characters, of words, and of pairs of words, without a loop over either.

Feature hashing (Weinberger et al. 2009, arXiv:0902.2206) over the texts laid end to end as bytes. The hash of a run of
bytes is a polynomial in them. For a word the powers are those of its place among all bytes, and divided out afterwards,
which an odd base allows modulo 2⁶⁴.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindling_runtime.splitmix import GOLDEN

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Owners = NDArray[np.uint32]
Letters = NDArray[np.bool_]

BUCKETS_LOG2 = 18
BUCKETS = 1 << BUCKETS_LOG2
WORDS_LOG2 = 16
WORDS = 1 << WORDS_LOG2
CHARACTERS = (3, 4, 5)
"""Lengths of the n-grams of characters, in bytes of UTF-8."""
MOST_TEXTS = 1 << (32 - BUCKETS_LOG2)
"""That `ngrams` takes at once: a text's position and a bucket share 32 bits, which sort twice as fast as 64."""

_BASE = int(GOLDEN)
_INVERSE = pow(_BASE, -1, 1 << 64)
_FACTOR = np.uint64(0xD6E8FEB86659FD93)
_WORD, _PAIR, _PLACE = np.uint64(0xA5A5A5A5), np.uint64(0x5A5A5A5A), np.uint64(0x3C3C3C3C)
_SPACE = ord(" ")
_LETTERS = np.array([c if c >= 128 or chr(c).isalnum() else _SPACE for c in range(256)], dtype=np.uint8)
"""Letters, digits and all that is not ASCII stand for themselves; anything else is a space."""


@dataclass(frozen=True)
class Ngrams:
    """The buckets of the n-grams of some texts, each once for a text, ordered by text and bucket; and their words."""

    buckets: Integers
    """[n] Below BUCKETS."""
    texts: Integers
    """[n] Whose they are, as the position of the text."""
    words: Integers
    """[m] All words, as numbers below WORDS, in the order in which they stand."""
    word_texts: Integers
    """[m] Whose they are."""


def ngrams_in_batches(texts: Sequence[str], size: int = 1000) -> Iterator[tuple[int, int, Ngrams]]:
    """The n-grams of `size` texts at a time: the position of the first of them, how many there are, their n-grams.

    A thousand short texts take tens of megabytes; fewer are faster, where nothing has to be kept of them.
    """
    for start in range(0, len(texts), size):
        batch = texts[start : start + size]
        yield start, len(batch), ngrams(batch)


def ngrams(texts: Sequence[str]) -> Ngrams:
    """The n-grams of at most MOST_TEXTS texts in lower case: of CHARACTERS, of one word, and of two words.

    Those of characters lie within a word and the space on either side of it.
    """
    encoded = [text.lower().encode() for text in texts]
    data = _LETTERS[np.frombuffer(b" ".join([b"", *encoded, b""]), dtype=np.uint8)]
    lengths = [1, *(len(each) + 1 for each in encoded)]
    text_of = np.repeat(np.arange(-1, len(encoded)).astype(np.uint32), lengths)
    values, is_letter = data.astype(np.uint64) + np.uint64(1), data != _SPACE
    words, owners = _words(values, is_letter, text_of)
    found = [*_of_characters(values, is_letter, text_of), *_of_words(words, owners)]
    keys = np.concatenate([whose << np.uint32(BUCKETS_LOG2) | _bucket(hashes) for hashes, whose in found])
    keys.sort()
    keys = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]
    return Ngrams(
        buckets=(keys & np.uint32(BUCKETS - 1)).astype(np.int64),
        texts=(keys >> np.uint32(BUCKETS_LOG2)).astype(np.int64),
        words=(_mixed(words ^ _PLACE) >> np.uint64(64 - WORDS_LOG2)).astype(np.int64),
        word_texts=owners.astype(np.int64),
    )


def _of_characters(values: Hashes, is_letter: Letters, text_of: Owners) -> list[tuple[Hashes, Owners]]:
    """Whose an n-gram is, its second character says: only its first may be the space that ends the text before."""
    found = []
    hashes, in_word = values, is_letter[:-1] | is_letter[1:]
    for length in range(2, max(CHARACTERS) + 1):
        hashes = hashes[:-1] * np.uint64(_BASE) + values[length - 1 :]
        if length in CHARACTERS:
            found.append((hashes[in_word] ^ np.uint64(length), text_of[1 : len(hashes) + 1][in_word]))
        in_word = in_word[:-1] & is_letter[length - 1 : -1]
    return found


def _words(values: Hashes, is_letter: Letters, text_of: Owners) -> tuple[Hashes, Owners]:
    """The hash of each word, and whose it is."""
    starts = np.flatnonzero(is_letter & ~np.append(False, is_letter[:-1]))
    if not len(starts):
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint32)
    terms = np.where(is_letter, values * _powers(_BASE, len(values)), np.uint64(0))
    return np.add.reduceat(terms, starts) * _powers(_INVERSE, len(values))[starts], text_of[starts]


def _of_words(words: Hashes, owners: Owners) -> list[tuple[Hashes, Owners]]:
    within = owners[:-1] == owners[1:]
    pairs = _mixed(words[:-1] ^ _PAIR) + words[1:]
    return [(_mixed(words ^ _WORD), owners), (_mixed(pairs)[within], owners[1:][within])]


def _powers(base: int, count: int) -> Hashes:
    """1, base, base², … modulo 2⁶⁴."""
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _mixed(hashes: Hashes) -> Hashes:
    return (hashes ^ (hashes >> np.uint64(32))) * _FACTOR


def _bucket(hashes: Hashes) -> Owners:
    return (_mixed(hashes) >> np.uint64(64 - BUCKETS_LOG2)).astype(np.uint32)
