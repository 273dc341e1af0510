"""What the characters of each script are to words, by Unicode's text segmentation (UAX 29) without a dictionary.

Most scripts have spaces between words. In those of China, Japan and mainland South-East Asia, UAX 29 sees a boundary at
each character (https://www.unicode.org/reports/tr29/, rule WB999), and so it is here: a character with the marks on it
is a word of its own. Katakana, of which UAX 29 makes one word of a run, is taken like the other letters of Japanese.
The properties are those of the `regex` library: `Ideographic`, `Script`, `Line_Break` (SA, AK and AS are the scripts of
which UAX 14 says that their words are not separated) and `Word_Break` (Extend, Format and ZWJ belong to the character
before them).
"""

from __future__ import annotations

import functools
import re

import numpy as np
import regex
from numpy.typing import NDArray

from kindling_dataprep.steps.char_spans import Integers

ALONE, DENSE, EXTEND = 1, 2, 4
"""What a character is, as bits: a word by itself; likewise, of a script in which words are short (Chinese, Japanese);
what goes with the character before it."""

CHARACTERS_PER_WORD = {ALONE | DENSE: 2, ALONE: 4}
"""How many characters, each with its marks, stand for a word where words are counted: in Chinese and Japanese, and in
the other scripts without spaces. They are round figures, for no dictionary is asked."""

CHARACTERS_READ = 1000

_DENSE = r"[\p{Ideographic}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Bopomofo}々ーｰ]"
_ALONE = r"[\p{Line_Break=SA}\p{Line_Break=AK}\p{Line_Break=AS}\p{Script=Tibetan}]"
_EXTEND = r"[\p{Word_Break=Extend}\p{Word_Break=Format}\p{Word_Break=ZWJ}]"


@functools.cache
def kinds() -> NDArray[np.uint8]:
    """[0x110000] For each code point what it is: 0, or some of ALONE, DENSE and EXTEND."""
    table = np.zeros(0x110000, dtype=np.uint8)
    everything = "".join(map(chr, range(len(table))))
    for pattern, kind in ((_ALONE, ALONE), (_DENSE, ALONE | DENSE), (_EXTEND, EXTEND)):
        for found in regex.finditer(pattern, everything):
            if found.group().isalnum() == (kind != EXTEND):
                table[found.start()] = kind
    return table


def characters_per_word(text: str) -> int:
    """How many characters stand for a word in what a text begins with: 1 where words have spaces between them."""
    some = text[:CHARACTERS_READ]
    if some.isascii():
        return 1
    found = kinds().take(np.frombuffer(some.encode("utf-32-le"), np.uint32))
    letters = {factor: int((found == kind).sum()) / factor for kind, factor in CHARACTERS_PER_WORD.items()}
    letters[1] = sum(map(str.isalpha, some)) / 5 - sum(letters.values())
    return max(letters, key=lambda factor: letters[factor])


def cut(inside: NDArray[np.bool_], kind: NDArray[np.uint8]) -> tuple[Integers, Integers]:
    """As `edges` of `inside`, the runs cut before and after each character that is a word by itself.

    Args:
        inside: What belongs to words. The first and last place are false.
        kind: What each character is.
    """
    base = bases(kind)
    alone = (kind[base] & ALONE) != 0  # with the marks on it
    alone &= inside
    begins = inside & ((kind & ALONE) != 0)
    begins[1:] |= inside[1:] & (~inside[:-1] | (alone[:-1] & ~alone[1:]))
    ends = inside.copy()
    ends[:-1] &= ~inside[1:] | begins[1:]
    return np.flatnonzero(begins) - 1, np.flatnonzero(ends)


def bases(kind: NDArray[np.uint8]) -> Integers:
    """[characters] The place of the last character that extends none: of a mark what it is on, of others their own."""
    places = np.arange(len(kind), dtype=np.int64)
    return np.maximum.accumulate(np.where(kind == EXTEND, 0, places))


@functools.cache
def word_pattern() -> re.Pattern[str]:
    """Words as runs of letters, digits and underscores with the marks on them, or one character in scripts without
    spaces; as `cut` finds them, for one text at a time."""
    alone, extend = _class_of(kinds() & ALONE != 0), _class_of(kinds() == EXTEND)
    return re.compile(rf"{alone}{extend}*|(?:(?!{alone})\w{extend}*)+")


def _class_of(members: NDArray[np.bool_]) -> str:
    changes = np.flatnonzero(np.diff(members, prepend=False, append=False)).reshape(-1, 2)
    return "[" + "".join(f"\\U{first:08x}-\\U{last - 1:08x}" for first, last in changes.tolist()) + "]"
