"""Which language a text is in, found offline.

The model is the one inside py3langid (Lui and Baldwin 2012, "langid.py: an off-the-shelf language identification tool",
ACL P12-3005): naive Bayes over byte n-grams, 140 languages in 4.6 MB. FineWeb (arXiv:2406.17557, section 3.2) uses
fastText's lid.176 at the same threshold, 0.65, but its model has to be fetched.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from kindling_dataprep.steps.code import has_signs, is_code
from kindling_dataprep.steps.languages import ENGLISH, is_plainly_english, known_language
from kindling_dataprep.steps.quality import Floats
from kindling_dataprep.steps.words import Words

CHARACTERS_READ = 1000
"""Of each text, from its beginning, shown to the model: more takes time and hardly changes the answer."""

SURE = 0.65
"""The score from which on a text is in the language found, as for FineWeb."""

NO_LANGUAGE = "zxx"
"""ISO 639-2 for what is in none."""

UNDETERMINED = "und"
"""ISO 639-2 for a text in which no language can be seen."""

_DECIMALS = 3
"""Of a score: what is beyond them differs between processors."""


def languages() -> list[str]:
    """The ISO 639 codes that can be found; `zxx` is what is no language, such as code."""
    return sorted(_identifier().labels)


def language(texts: Sequence[str], words: Words) -> dict[str, pa.Array | Floats]:
    """The most likely language of each text and its probability (`score`).

    Without a letter it is `und`, with 0; source code is `zxx`, with 1, whatever its comments are in.
    """
    found = [(NO_LANGUAGE, 1.0) if is_code(text) else _identify(text[:CHARACTERS_READ]) for text in texts]
    return {
        "language": pa.array([code for code, _ in found], pa.string()),
        "score": np.array([score for _, score in found], dtype=np.float64),
    }


def languages_of(texts: Sequence[str]) -> list[str]:
    """The language of each text whose rules it gets, by what it begins with.

    What is plainly English, or in Latin letters and as full of brackets as code, is not shown to the model.
    """
    return [_language_of(text) for text in texts]


def _language_of(text: str) -> str:
    beginning = text[:CHARACTERS_READ]
    if is_plainly_english(beginning) or (beginning.isascii() and has_signs(beginning)):
        return ENGLISH
    code, score = _identify(beginning)
    return known_language(text, code, score >= SURE)


def _identify(text: str) -> tuple[str, float]:
    if not any(map(str.isalpha, text)):
        return UNDETERMINED, 0.0
    code, score = _identifier().classify(text)
    return str(code), round(float(score), _DECIMALS)


@functools.cache
def _identifier() -> LanguageIdentifier:
    """The model, loaded once a process, in about a second."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
