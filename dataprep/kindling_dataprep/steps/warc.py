"""How web archives become documents: the main text of each page (WARC), or each text that was taken of one (WET).

Records are numbered as they come, whatever their type. Those that are no page, such as requests, redirects and images,
come as Removals by the rule `noPage`. Format: ISO 28500:2017.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

from fastwarc import ArchiveIterator, WarcRecord, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from kindling_dataprep.records import Document, InputFile, Removal, Span
from kindling_dataprep.steps import faults
from kindling_dataprep.steps.faults import bad_record, broken, document, no_page, too_large
from kindling_dataprep.steps.unpack import unpacked

_OK = 200
_HTML = {"text/html", "application/xhtml+xml"}
_PLAIN = {"text/plain"}

_TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)", re.IGNORECASE)

_NO_DEPTH = {
    *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"),
    *("p", "li", "dt", "dd", "option", "optgroup", "tr", "td", "th", "thead", "tbody", "tfoot", "colgroup", "rp", "rt"),
}
"""Elements without content, and those that end where the next one begins (HTML Living Standard, 13.1.2)."""

Result = TypeVar("Result")


def read_wet(stream: BinaryIO, span: Span) -> Iterator[Document | Removal]:
    """One document a `conversion` record: its text."""
    for number, url, block in _blocks(stream, span, WarcRecordType.conversion):
        if isinstance(block, Removal):
            yield block
        else:
            yield document(span.file, number, block.decode("utf-8", errors="replace"), url)


def read_warc(stream: BinaryIO, span: Span) -> Iterator[Document | Removal]:
    """One document a `response` record with status 200 that holds HTML or plain text."""
    for number, url, block in _blocks(stream, span, WarcRecordType.response):
        if isinstance(block, Removal):
            yield block
        else:
            yield _page(span.file, number, url, block)


def _blocks(stream: BinaryIO, span: Span, wanted: WarcRecordType) -> Iterator[tuple[int, str, bytes | Removal]]:
    """The number, URL and content of each record of the type wanted, or why there is no content."""
    number = 0
    try:
        # HTTP is parsed later, out of the block: what is damaged in one record must not stop the iterator.
        records = _guarded(lambda: ArchiveIterator(unpacked(stream, span.file), parse_http=False, stream_detect=False))
        while True:
            number += 1
            record = _guarded(lambda: next(records, None))
            if record is None:
                return
            length, url = record.content_length, record.headers.get("WARC-Target-URI") or ""
            if record.record_type != wanted:
                yield number, url, no_page(span.file, number, "type", f"{record.headers.get('WARC-Type')} {url}")
                continue
            if length > faults.MAX_RECORD_BYTES:
                yield number, url, too_large(span.file, number, record.reader.read(1000))
                continue
            block = record.reader.read(length) if length else b""
            if len(block) < length:
                raise OSError(f"the file ends {length - len(block)} bytes before its last record does")
            yield number, url, block
    except OSError as error:
        yield number, "", broken(span.file, number, error)


def _page(file: InputFile, number: int, url: str, block: bytes) -> Document | Removal:
    """The text of an HTTP response, or why it is no page."""
    try:
        response = _guarded(lambda: _http(block))
        kind = (response.http_content_type or "").lower()
        status = response.http_headers.status_code if response.http_headers is not None else None
        if status != _OK:
            return no_page(file, number, "status", url, value=status, threshold=_OK)
        if kind not in _HTML | _PLAIN:
            return no_page(file, number, "contentType", f"{kind} {url}")
        body = _guarded(lambda: response.reader.read(faults.MAX_RECORD_BYTES + 1))
        if len(body) > faults.MAX_RECORD_BYTES:
            return too_large(file, number, body)
        text = _decoded(body, response.http_charset)
        if kind in _PLAIN:
            return document(file, number, text, url)
        if _depth(text) > faults.MOST_NESTED:
            return bad_record(file, number, "nesting", text, threshold=float(faults.MOST_NESTED))
        main = _guarded(lambda: extract_plain_text(text, main_content=True, alt_texts=False))
        return document(file, number, main, url)
    except OSError:
        return bad_record(file, number, "http", block)


def _http(block: bytes) -> WarcRecord:
    record = WarcRecord()
    record.init_headers(WarcRecordType.response)
    record.set_bytes_content(block)
    record.is_http = True
    record.parse_http(auto_decode="all")
    return record


def _decoded(body: bytes, declared: str | None) -> str:
    """UTF-8 where the bytes are that, since other text hardly ever is; otherwise as declared, or as it looks."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding = (declared or "").strip("\"' ") or detect_encoding(body, from_html_meta=True) or "utf-8"
        return bytes_to_str(body, encoding, errors="replace")


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


def _guarded(call: Callable[[], Result]) -> Result:
    """What `call` returns; a panic inside the libraries, which no `except Exception` would see, becomes an OSError."""
    try:
        return call()
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise OSError(str(error)) from error
        raise
