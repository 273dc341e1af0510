"""What a word is, said once for the quality rules and once for deduplication.

For quality a word is a run of characters between Unicode white space (`str.split`), as in Dolma; the Gopher paper does
not say. Punctuation stays on its word (`the,` is not the stop word `the`), and scripts written without spaces have long
words. For deduplication neither case nor punctuation count, as in datatrove.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Words:
    """The words of many texts, laid end to end as positions in one vocabulary."""

    vocabulary: list[str]
    """Distinct words, in order of first occurrence."""
    ids: NDArray[np.int64]
    """[words] Each word's position in the vocabulary."""
    texts: NDArray[np.int64]
    """[words] Each word's text."""
    starts: NDArray[np.int64]
    """[texts + 1] Where each text's words begin; the last entry is the number of words."""


PLAIN_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of one text, for quality."""
    return text.split()


def plain_words_of(text: str) -> list[str]:
    """The words of one text, for deduplication: runs of letters, digits and underscores, folded."""
    return PLAIN_WORD.findall("".join(map(folded, text)))


def folded(character: str) -> str:
    """Without its case, where that is one character (Unicode's simple case folding): `A` → `a`, `Σ` and `ς` → `σ`."""
    fold = character.casefold()
    return fold if len(fold) == 1 else character


def split_words(texts: Sequence[str]) -> Words:
    """The words of many texts; this is the only tokenisation that measuring needs."""
    positions: dict[str, int] = {}
    ids: list[int] = []
    starts = [0]
    for text in texts:
        ids.extend([positions.setdefault(word, len(positions)) for word in words_of(text)])
        starts.append(len(ids))
    bounds = np.array(starts, dtype=np.int64)
    return Words(
        vocabulary=list(positions),
        ids=np.array(ids, dtype=np.int64),
        texts=np.repeat(np.arange(len(texts), dtype=np.int64), np.diff(bounds)),
        starts=bounds,
    )
