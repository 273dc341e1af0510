"""Pornography, by the words that a text is made of and by the sites that it links to.

C4 (arXiv:1910.10683, section 2.2) removes a page for one word of a list that also holds ordinary and medical words, and
FineWeb (arXiv:2406.17557, section 3.1) by the address of a page. The lexicon here holds only words that hardly occur
elsewhere, in English, and asks for several of them; no threshold is published for that.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from importlib.resources import files

import numpy as np

from kindling_dataprep.steps.quality import Floats, Integers, fraction, of_words, sums
from kindling_dataprep.steps.words import Words


def _list(name: str) -> frozenset[str]:
    return frozenset(files("kindling_dataprep").joinpath("lists", name).read_text().split())


FEWEST_WORDS = 3
"""Fewer words of the lexicon count as none, however short the text is."""

LEXICON = _list("adult-words.txt")
"""In lower case."""

SITES = _list("adult-sites.txt")
"""Domains, among them top-level ones made for the purpose, in lower case; what lies below them counts with them."""

_HOST = re.compile(r"(?:https?://|\bwww\.)(?:[^\s/@]*@)?(?:www\.)?([\w-]+(?:\.[\w-]+)+)", re.IGNORECASE)
_EDGES = string.punctuation + "“”‘’„«»…–—"


def adult(texts: Sequence[str], words: Words) -> dict[str, Integers | Floats]:
    """The fraction of words in the lexicon, without punctuation and case, and the number of links to SITES."""
    found = sums(words, of_words(words, lambda word: word.lower().strip(_EDGES) in LEXICON))
    return {
        "lexiconFraction": fraction(np.where(found < FEWEST_WORDS, 0, found), np.diff(words.starts)),
        "siteLinks": sums(words, of_words(words, lambda word: sum(map(_is_adult, _HOST.findall(word))))),
    }


def _is_adult(host: str) -> bool:
    parts = host.lower().split(".")
    return any(".".join(parts[start:]) in SITES for start in range(len(parts)))
