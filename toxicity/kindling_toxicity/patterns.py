"""Patterns of two neighbouring words: what a sum over n-grams cannot say, that one word changes another's meaning.

A pattern gives each word two numbers, one for standing first and one for standing second, and matches a text as well as
the best of its pairs does, wherever that stands: a convolution with max-over-time pooling (Collobert et al. 2011,
"Natural Language Processing (Almost) from Scratch", arXiv:1103.0398, §3.3.2) over words that are hashed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kindling_toxicity.ngrams import Ngrams

PATTERNS = 32
UNKNOWN = 0
"""The word whose rows are 0; a word that has its hash is not known either."""

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Patterns:
    """What the patterns are, and how much each says."""

    rows: Floats
    """[2, WORDS, PATTERNS] What a word is worth to a pattern, as the first of two and as the second; 0 where a word is
    not known."""
    least: Floats
    """[PATTERNS] How well a pattern must match to count."""
    says: Floats
    """[PATTERNS] Log-odds for each unit beyond that."""

    def logits(self, found: Ngrams, texts: int) -> Floats:
        """[texts] The sum over all patterns; 0 for a text without words."""
        logits = np.zeros(texts, dtype=np.float32)
        if len(found.words):
            starts = starts_of(found.word_texts)
            matches = np.maximum.reduceat(self.matches(found.words, found.word_texts), starts, axis=0)
            logits[found.word_texts[starts]] = np.maximum(matches - self.least, 0) @ self.says
        return logits

    def matches(self, words: Integers, texts: Integers) -> Floats:
        """[words, PATTERNS] How well each pattern matches a word and the next one of the same text, if there is one."""
        following = np.where(np.append(texts[1:] == texts[:-1], False), np.append(words[1:], UNKNOWN), UNKNOWN)
        matches: Floats = self.rows[0].take(words, axis=0)
        matches += self.rows[1].take(following, axis=0)
        return matches

    def times(self, factor: float) -> Patterns:
        """Patterns that say so many times as much."""
        return replace(self, says=self.says * np.float32(factor))


def starts_of(texts: Integers) -> Integers:
    """[texts with words] Where each of them starts."""
    return np.flatnonzero(np.append(True, texts[1:] != texts[:-1]))
