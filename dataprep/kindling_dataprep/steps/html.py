"""The main text of HTML: of a page of a web archive, or of a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from resiliparse.extract.html2text import extract_plain_text

from kindling_dataprep.records import Document, InputFile, Removal, Span
from kindling_dataprep.steps import faults
from kindling_dataprep.steps.content import Content
from kindling_dataprep.steps.encodings import decoded
from kindling_dataprep.steps.faults import bad_record, document, too_large

_TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)", re.IGNORECASE)

_NO_DEPTH = {
    *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"),
    *("p", "li", "dt", "dd", "option", "optgroup", "tr", "td", "th", "thead", "tbody", "tfoot", "colgroup", "rp", "rt"),
}
"""Elements without content, and those that end where the next one begins (HTML Living Standard, 13.1.2)."""

Result = TypeVar("Result")


def read_html(content: Content, span: Span) -> Iterator[Document | Removal]:
    """A file is one document: its main text, decoded as browsers do; of a damaged file, that of what can be read."""
    file, data, gaps = span.file, b"", []
    while True:
        data += content.read(faults.MAX_RECORD_BYTES + 1 - len(data))
        if content.gap is None:
            break
        gaps.append(content.go_on())
    if data or not gaps:
        record = _file_text(file, span.first, data)
        is_lost = isinstance(record, Removal) and not content.is_packed and not gaps
        yield replace(record, offset=0, unread=file.size) if is_lost and isinstance(record, Removal) else record
    for number, gap in enumerate(gaps, span.first + bool(data)):
        yield content.lost(number, gap)


def _file_text(file: InputFile, number: int, data: bytes) -> Document | Removal:
    if len(data) > faults.MAX_RECORD_BYTES:
        return too_large(file, number, data)
    try:
        return main_text(file, number, decoded(data, is_html=True), "")
    except OSError:
        return bad_record(file, number, "binary", data)


def main_text(file: InputFile, number: int, html: str, url: str) -> Document | Removal:
    """Record `number` of a file, which is a page, as a document.

    Raises:
        OSError: the parser gives up.
    """
    if _depth(html) > faults.MOST_NESTED:
        return bad_record(file, number, "nesting", html, threshold=float(faults.MOST_NESTED))
    return document(file, number, guarded(lambda: extract_plain_text(html, main_content=True, alt_texts=False)), url)


def _depth(html: str) -> int:
    """The most elements that can be open at once, not counting those that close themselves."""
    if html.count("<") <= faults.MOST_NESTED:
        return 0
    depth = deepest = 0
    for closing, name in _TAG.findall(html):
        if name.lower() in _NO_DEPTH:
            continue
        depth = max(depth - 1, 0) if closing else depth + 1
        deepest = max(deepest, depth)
    return deepest


def guarded(call: Callable[[], Result]) -> Result:
    """What `call` returns; a panic inside the libraries, which no `except Exception` would see, becomes an OSError."""
    try:
        return call()
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise OSError(str(error)) from error
        raise
