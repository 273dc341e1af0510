"""Floods of links, of one keyword, of telephone numbers and prices, and of the phrases that sell.

What is measured is what Ntoulas et al. 2006 ("Detecting spam web pages through content analysis",
doi:10.1145/1135777.1135794) found to tell spam from other pages: the share of anchor text, the density of single words,
and words that are typical of spam. No thresholds are published for these measures; that of links is the one that
NVIDIA's Curator has for the share of URLs in characters, and the others were chosen so that prose is far below them.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import numpy as np

from kindling_dataprep.steps.quality import Floats, Integers, counts, fraction, of_words, sums
from kindling_dataprep.steps.words import Words, words_of

FLOOD = 5
"""What occurs fewer times in a text is no flood, however short the text is: its fraction counts as 0."""

KEYWORD_LETTERS = 4

BAIT_PHRASES = (
    *("act now", "add to cart", "best price", "buy cheap", "buy now", "buy online", "call now", "cheap price"),
    *("click below", "click here", "click now", "discount code", "double your", "earn money", "free shipping"),
    *("free trial", "limited time", "lowest price", "make money", "money back", "no prescription", "online casino"),
    *("online pharmacy", "order now", "order online", "order today", "payday loan", "promo code", "risk free"),
    *("shop now", "sign up now", "special offer", "subscribe now", "while supplies last", "work from home"),
)
"""In lower case."""

_LINK = re.compile(r"https?://|ftp://|\bwww\.", re.IGNORECASE)
_PHONE_OR_PRICE = re.compile(
    r"""(?<![\w.+-])(?:
        \+\d[\d\ ().-]{7,17}\d(?![\d-])             # +49 (30) 123-4567
      | (?:\(\d{3}\)\ ?|\d{3}[.-])\d{3}[.-]\d{4}(?![.-]?\w)  # (555) 123-4567, 555.123.4567
      | [$€£¥₹]\ ?\d[\d.,]*                         # $ 9.99
      | \d[\d.,]*\ ?(?:[$€£¥₹]|(?:USD|EUR|GBP)\b)   # 9,99 €
    )""",
    re.VERBOSE,
)
_EDGES = string.punctuation + "“”‘’„«»…–—"


def spam(texts: Sequence[str], words: Words) -> dict[str, Integers | Floats]:
    """Fractions of all words, each 0 where its kind occurs fewer than FLOOD times.

    A link is a word with `http://`, `https://`, `ftp://` or `www.` in it. A keyword has KEYWORD_LETTERS letters or more
    and nothing else but punctuation around it, and is the same in upper and lower case; the most frequent one counts. A
    telephone number (with a plus, or North American) or price counts for as many words as it reaches into, a phrase of
    BAIT_PHRASES as one.
    """
    total = np.diff(words.starts)
    floods = {
        "linkFraction": sums(words, of_words(words, lambda word: _LINK.search(word) is not None)),
        "keywordFraction": _most_frequent(words, of_words(words, _Keywords())),
        "phonePriceFraction": counts(_phone_and_price_words(text) for text in texts),
        "baitFraction": counts(_bait_phrases(text.lower()) for text in texts),
    }
    return {name: fraction(np.where(times < FLOOD, 0, times), total) for name, times in floods.items()}


class _Keywords(dict[str, int]):
    """Numbers for keywords: the same for equal ones, and -1 for what is none."""

    def __call__(self, word: str) -> int:
        plain = word.lower().strip(_EDGES)
        return self.setdefault(plain, len(self)) if len(plain) >= KEYWORD_LETTERS and plain.isalpha() else -1


def _most_frequent(words: Words, numbers: Integers) -> Integers:
    """[texts] How often the most frequent of each text's `numbers` [words] occurs, those below 0 left out."""
    counted = numbers >= 0
    kinds = int(numbers.max(initial=0)) + 1
    keys, times = np.unique(words.texts[counted] * kinds + numbers[counted], return_counts=True)
    most = np.zeros(len(words.starts) - 1, dtype=np.int64)
    np.maximum.at(most, keys // kinds, times)
    return most


def _phone_and_price_words(text: str) -> int:
    return sum(len(words_of(found)) for found in _PHONE_OR_PRICE.findall(text))


def _bait_phrases(lowered: str) -> int:
    return sum(map(lowered.count, BAIT_PHRASES))
