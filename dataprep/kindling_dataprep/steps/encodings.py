"""Bytes of unknown encoding as text. No label and no byte is an error: a page always becomes text, as in a browser, and
what else does not turn out to be text is None. The detector is Mozilla's (uchardet)."""

from __future__ import annotations

import codecs
import re

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

_MULTIBYTE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}",
)
"""Characters of UTF-8 outside ASCII (RFC 3629), all but exactly."""

_SEQUENCES_A_FAULT = 20
"""So many good characters outside ASCII for each bad byte show that a text is UTF-8 nevertheless."""

_ENOUGH_TO_DETECT = 8
"""Bytes outside ASCII; fewer are taken as browsers take them without a label."""

_USUAL = "cp1252"
_FOR_BROWSERS = {"gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs"}
"""Python's names of what browsers decode by some labels (WHATWG Encoding Standard, section 4.2)."""

_WIDER = {"iso8859-1": _USUAL, "iso8859-9": "cp1254", "iso8859-11": "cp874", **_FOR_BROWSERS}
"""Encodings that hold more than the one that is detected, and are what is meant."""

_MOST_REPLACED = 0.005
"""Share of characters that do not decode; accents are more of any language that has them."""

_NULS = 0.4
"""Share of the characters of a text in UTF-16 whose other byte is a NUL, at least."""

_SEARCHED = 4096
"""Bytes of the beginning of a text."""

_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def decoded(data: bytes, *, declared: str | None = None, is_html: bool = False) -> str:
    """A page as text. UTF-8 where the bytes are that, since other text hardly ever is; otherwise as declared, by the
    labels that browsers know, or as it looks. What cannot be decoded becomes U+FFFD.

    Args:
        declared: The label that came with the page.
        is_html: Whether a label may stand in the page.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    encoding = encoding or _encoding(data, _known(declared, data), is_html=is_html)
    text = data.decode(_FOR_BROWSERS.get(encoding, encoding), errors="replace")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").removeprefix("\ufeff")


def _encoding(data: bytes, declared: str | None, *, is_html: bool) -> str:
    """The encoding of bytes that are not, or not all, UTF-8."""
    good, bad = _in_utf8(data)
    if good >= _SEQUENCES_A_FAULT * bad or (declared == "utf-8" and good >= bad):
        return "utf-8"
    if declared not in (None, "utf-8"):
        return declared
    if declared == "utf-8" and bad < _ENOUGH_TO_DETECT:
        return _USUAL
    return _detected(data, is_html=is_html) or _USUAL


def text_of(data: bytes) -> str | None:
    """A file as text: UTF-8, UTF-16, or what it looks like; None where it looks like nothing that decodes."""
    if is_utf16(data):
        return _decoded_without_fault(data, "utf-16" if data[:2] in _MARKS else _endianness(data))
    text = utf8_of(data)
    if text is not None and "\ufffd" not in text:
        return text
    good, bad = _in_utf8(data)
    if good >= _SEQUENCES_A_FAULT * bad:
        return text
    encoding = _detected(data, is_html=False) if bad >= _ENOUGH_TO_DETECT else _USUAL
    found = _decoded_without_fault(data, encoding) if encoding is not None else None
    return found if found is not None else text


def utf8_of(data: bytes) -> str | None:
    """A text that is said to be UTF-8: with a U+FFFD here and there, or None where it is something else."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="replace")
    return text if text.count("\ufffd") <= max(_MOST_REPLACED * len(text), 1) else None


def is_utf16(data: bytes) -> bool:
    """Whether it is marked as UTF-16, or every other byte of its beginning is a NUL."""
    return data[:2] in _MARKS or _endianness(data) is not None


def _endianness(data: bytes) -> str | None:
    beginning = data[: _SEARCHED // 2 * 2]
    even, odd = beginning[::2].count(0), beginning[1::2].count(0)
    most = max(even, odd)
    if len(beginning) < 4 or min(even, odd) or most < _NULS * len(beginning) / 2:
        return None
    return "utf-16-le" if odd else "utf-16-be"


def _decoded_without_fault(data: bytes, encoding: str | None) -> str | None:
    if encoding is None:
        return None
    text = data.decode(encoding, errors="replace")
    return None if text.count("\ufffd") > _MOST_REPLACED * len(text) else text


def _detected(data: bytes, *, is_html: bool) -> str | None:
    """Python's name of the encoding that the data looks like, or that a page names within itself."""
    name = detect_encoding(data, from_html_meta=is_html, html5_compatible=False)
    name = _WIDER.get(name, name) if name is not None else None
    try:
        return None if name is None or name.startswith("utf") or _is_no_text(name) else name
    except LookupError:
        return None


def _is_no_text(name: str) -> bool:
    return not codecs.lookup(name)._is_text_encoding


def _in_utf8(data: bytes) -> tuple[int, int]:
    """Characters outside ASCII, and bytes outside ASCII that make none."""
    found = _MULTIBYTE.findall(data)
    high = len(data) - len(data.translate(None, _HIGH))
    return len(found), high - sum(map(len, found))


_HIGH = bytes(range(0x80, 0x100))


def _known(label: str | None, data: bytes) -> str | None:
    """Python's name for an encoding by a label of the WHATWG table; None where it is none, or is UTF-16, of which
    `data` shows no sign."""
    cleaned = (label or "").strip("\"' \t\r\n").lower()
    name = map_encoding_to_html5(cleaned, fallback_utf8=False) if cleaned else None
    return None if name is not None and name.startswith("utf-16") and b"\0" not in data[:_SEARCHED] else name
