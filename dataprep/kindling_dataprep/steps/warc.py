"""How web archives become documents: the main text of each page (WARC), or each text that was taken of one (WET).

Records are numbered as they come, whatever their type. Those that are no page, such as requests, redirects and images,
come as Removals by the rule `noPage`. Format: ISO 28500:2017.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastwarc import WarcRecord, WarcRecordType

from kindling_dataprep.records import Document, InputFile, Removal, Span
from kindling_dataprep.steps import faults
from kindling_dataprep.steps.archive import ArchiveRecord, records
from kindling_dataprep.steps.content import Content
from kindling_dataprep.steps.encodings import decoded, utf8_of
from kindling_dataprep.steps.faults import bad_record, document, no_page, too_large
from kindling_dataprep.steps.html import guarded, main_text

_OK = 200
_HTML = {"text/html", "application/xhtml+xml"}
_PLAIN = {"text/plain"}


def read_wet(content: Content, span: Span) -> Iterator[Document | Removal]:
    """One document a `conversion` record: its text."""
    for record in _wanted(content, span, "conversion"):
        if isinstance(record, Removal):
            yield record
        elif (text := utf8_of(record.block)) is None:
            yield bad_record(span.file, record.number, "encoding", record.block)
        else:
            yield document(span.file, record.number, text, _url(record))


def read_warc(content: Content, span: Span) -> Iterator[Document | Removal]:
    """One document a `response` record with status 200 that holds HTML or plain text."""
    for record in _wanted(content, span, "response"):
        yield record if isinstance(record, Removal) else _page(span.file, record.number, _url(record), record.block)


def _wanted(content: Content, span: Span, kind: str) -> Iterator[ArchiveRecord | Removal]:
    """The records of a type, and why the others are none."""
    for record in records(content, span, kind):
        if isinstance(record, Removal) or record.type.lower() == kind:
            yield record
        else:
            yield no_page(span.file, record.number, "type", f"{record.type} {_url(record)}")


def _url(record: ArchiveRecord) -> str:
    return record.headers.get("warc-target-uri", "")


def _page(file: InputFile, number: int, url: str, block: bytes) -> Document | Removal:
    """The text of an HTTP response, or why it is no page."""
    try:
        response = guarded(lambda: _http(block))
        kind = (response.http_content_type or "").lower()
        status = response.http_headers.status_code if response.http_headers is not None else None
        if status != _OK:
            return no_page(file, number, "status", url, value=status, threshold=_OK)
        if kind not in _HTML | _PLAIN:
            return no_page(file, number, "contentType", f"{kind} {url}")
        body = guarded(lambda: response.reader.read(faults.MAX_RECORD_BYTES + 1))
        if len(body) > faults.MAX_RECORD_BYTES:
            return too_large(file, number, body)
        text = decoded(body, declared=response.http_charset, is_html=kind in _HTML)
        if kind in _PLAIN:
            return document(file, number, text, url)
        return main_text(file, number, text, url)
    except OSError:
        return bad_record(file, number, "http", block)


def _http(block: bytes) -> WarcRecord:
    record = WarcRecord()
    record.init_headers(WarcRecordType.response)
    record.set_bytes_content(block)
    record.is_http = True
    record.parse_http(auto_decode="all")
    return record
