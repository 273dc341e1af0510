"""Where sentences end in languages other than English.

A mark that ends one has Unicode's property `Sentence_Terminal` (UAX 29): `。`, `؟`, `।`, `።` and the like beside `.`,
`!` and `?`. Those are datatrove's `TERMINAL_PUNCTUATION` but for three signs of Khmer that end no sentence. Quotation
marks and brackets may follow.
"""

from __future__ import annotations

import functools
import re

import regex

CLOSING = "\"'”’»›」』】》〉）)]"
_ELLIPSES = ("...", "…")
_SPACES = re.compile(r"(?<=\S)[^\S\n\r]+(?=\S)")
_DENSE_ENDS = "。！？｡"
"""After these a sentence begins at once, without white space."""


def ends_sentence(line: str) -> bool:
    """Whether a line ends in a mark that ends a sentence, in closing quotation marks or not, or in a quotation mark."""
    return line.rstrip(CLOSING)[-1:] in terminals() or line[-1:] in ("'", '"')


def ends_in_ellipsis(line: str) -> bool:
    """Whether a line breaks off."""
    return line.endswith(_ELLIPSES)


def sentences_inside(text: str, *, unpunctuated: bool = False) -> int:
    """How many sentences end inside of lines: at a mark, or, where none is written, at white space (as in Thai)."""
    return len((_SPACES if unpunctuated else _inside()).findall(text))


@functools.cache
def terminals() -> frozenset[str]:
    """The marks that end sentences."""
    return frozenset(regex.findall(r"\p{Sentence_Terminal}", "".join(map(chr, range(0x110000)))))


@functools.cache
def _inside() -> re.Pattern[str]:
    """A mark or several, with what closes after them, where the line goes on."""
    marks, closing = re.escape("".join(sorted(terminals()))), re.escape(CLOSING)
    at_once = rf"[{_DENSE_ENDS}]+[{closing}]*(?=[^\s{_DENSE_ENDS}{closing}])"
    return re.compile(rf"{at_once}|[{marks}]+[{closing}]*[^\S\n\r]+(?=\S)")
