"""Texts as they were meant: encoding, Unicode form, line ends and invisible characters put right.

What is repaired is what no reader would miss. Indentation, tabs, form feeds, joiners that scripts and emoji need, and
text that is merely unusual stay as they are; where a repair is in doubt, nothing is done.
"""

from __future__ import annotations

import re
import unicodedata

import ftfy
import ftfy.badness

from kindling_api.v1alpha1.filters import Formatting

_LINE_END = re.compile("\r\n|[\r\v\x85\u2028\u2029]")
_TERMINAL_ESCAPE = re.compile("\x1b\\[[0-9;?]*[A-Za-z]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_BINARY = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f\ufffd]")

_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Thai, Lao, Burmese and Khmer letters, between which a zero-width space marks the end of a word."""
_INVISIBLE = re.compile(f"[\ufeff\u2060\u00ad]|(?<![{_SPACELESS}])\u200b+|\u200b+(?![{_SPACELESS}\u200b])")


def repair(text: str, spec: Formatting) -> str | tuple[str, float, float]:
    """The repaired text, or (measure, value, threshold) of why it is none.

    Removed are texts with nothing to read (`characters` 0, threshold 1) and binary ones (`controlFraction`: control
    characters other than white space and escape, and undecodable ones, divided by all characters).
    """
    control_fraction = len(_BINARY.findall(text)) / max(1, len(text))
    if control_fraction > spec.max_control_fraction:
        return "controlFraction", control_fraction, spec.max_control_fraction
    if spec.repair_mojibake and not text.isascii():
        text = _repaired_encoding(text)
    text = _LINE_END.sub("\n", text)
    text = _CONTROL.sub("", _TERMINAL_ESCAPE.sub("", text))
    if not text.isascii():
        text = unicodedata.normalize(spec.unicode_form, _INVISIBLE.sub("", text))
    text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    if not text or text.isspace():
        return "characters", 0.0, 1.0
    return text


def _repaired_encoding(text: str) -> str:
    """Mojibake undone, line by line: a text may have been put together from several encodings.

    ftfy's measure of badness (Speer 2019, "ftfy", doi:10.5281/zenodo.2591652) is asked first, for the whole text and
    then for each line, since most texts have nothing to repair.
    """
    if not ftfy.badness.is_bad(text):
        return text
    return "\n".join([ftfy.fix_encoding(line) if ftfy.badness.is_bad(line) else line for line in text.split("\n")])
