"""C4's rules: first the lines that no reader wants, then the pages of which too little is left.

Raffel et al. 2020 (arXiv:1910.10683), section 2.2, and the code that made the corpus (tensorflow_datasets,
`text/c4_utils.py`). That code looks for brackets and filler text in a few lines besides that it then removes for a
phrase; here they are counted in the lines that stay. C4's list of bad words is left to the rule set `adult`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kindling_api.v1alpha1.filters import C4
from kindling_dataprep.steps.languages import ENGLISH, UNPUNCTUATED
from kindling_dataprep.steps.quality import TERMINAL_PUNCTUATION, Floats, Integers, counts
from kindling_dataprep.steps.sentences import ends_in_ellipsis, ends_sentence, sentences_inside
from kindling_dataprep.steps.words import Words, split_words, words_of

UNWANTED_PHRASES = (
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
"""A line that holds one of them, in upper or lower case, is a notice of the site."""

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""Where `str.splitlines` ends a line."""
_SENTENCE_END_INSIDE = re.compile(
    # what ends it comes first, since a pattern that begins with a character class is searched for fast
    rf"""[.!?](?<!\b\w\.)(?<!\b(?:Mr|Ms|Dr|St|vs)\.)(?<!\bMrs\.)["')\]”’]*[^\S{_LINE_ENDS}]+(?=\S)"""
)


def c4_lines(text: str, spec: C4, language: str = ENGLISH) -> tuple[str, int]:
    """The text without the lines that C4 removes, and how many those are; blank lines go too, and do not count.

    Wikipedia's marks (`[1]`, `[edit]`, `[citation needed]`) are cut out of the lines. A line ends in terminal
    punctuation with one of `. ? ! " '`, unless that is an ellipsis; in other languages than English as `sentences`
    says, and none is asked for where none is written (Thai, Lao, Dzongkha).
    """
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    lowered = text.lower()
    phrases = [phrase for phrase in UNWANTED_PHRASES if phrase in lowered]
    kept = []
    for line in lines:
        cut = _CITATION.sub("", line).rstrip() if "[" in line else line
        if _is_content(cut, spec, language) and not (phrases and _holds_any(phrases, cut.lower())):
            kept.append(cut)
    return "\n".join(kept), len(lines) - len(kept)


def c4(texts: Sequence[str], words: Words) -> dict[str, Integers | Floats]:
    """What C4 asks about a page, of the lines that stay.

    A sentence ends with its line, or inside one at `.`, `?` or `!`, perhaps in quotation marks or brackets, before
    white space; the full stop of a single letter (`e.g.`, `J. S. Bach`) or of a title ends none. (The corpus was made
    with NLTK's trained splitter.) In other languages it ends as `sentences` says. Curly brackets are those that open.
    """
    return {
        "sentences": counts(map(_sentences, texts, words.languages)),
        "curlyBrackets": counts(text.count("{") for text in texts),
        "loremIpsums": counts(text.lower().count("lorem ipsum") for text in texts),
    }


def _is_content(line: str, spec: C4, language: str) -> bool:
    if language != ENGLISH:
        return _is_content_elsewhere(line, spec, language)
    if spec.require_terminal_punctuation and (not line.endswith(TERMINAL_PUNCTUATION) or line.endswith("...")):
        return False
    words = words_of(line)
    if len(line) > spec.max_word_length and max(map(len, words), default=0) > spec.max_word_length:
        return False
    return len(words) >= max(1, spec.min_words_per_line)


def _is_content_elsewhere(line: str, spec: C4, language: str) -> bool:
    asks = spec.require_terminal_punctuation and language not in UNPUNCTUATED
    if asks and (not ends_sentence(line) or ends_in_ellipsis(line)):
        return False
    words = split_words([line], [language])
    if words.lengths.max(initial=0) > spec.max_word_length:
        return False
    return len(words.lengths) >= max(1, spec.min_words_per_line * int(words.factors[0]))


def _holds_any(phrases: Sequence[str], line: str) -> bool:
    return any(phrase in line for phrase in phrases)


def _sentences(text: str, language: str) -> int:
    lines = sum([not line.isspace() for line in text.splitlines() if line])
    if language != ENGLISH:
        return lines + sentences_inside(text, unpunctuated=language in UNPUNCTUATED)
    return lines + len(_SENTENCE_END_INSIDE.findall(text))
