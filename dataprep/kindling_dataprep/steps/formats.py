"""How text and JSON lines become documents, whatever is wrong with the file.

Everything is streamed, and a record larger than MAX_RECORD_BYTES is skipped, not held. In which span a record is read
makes no difference to what is read of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from kindling_dataprep.records import Document, InputFile, Removal, Span, excerpt_of
from kindling_dataprep.steps import faults
from kindling_dataprep.steps.content import Content
from kindling_dataprep.steps.encodings import is_utf16, text_of, utf8_of
from kindling_dataprep.steps.faults import bad_record, document, too_large

TEXT_BYTES = 8 * 2**20
"""A document of plain text ends with the first line that ends after so many bytes; the next one begins there."""

_BINARY_CHECK_BYTES = 8000
"""A NUL byte among the first of these marks a text as binary: the rule that git uses for files."""

URL_FIELD = "url"
"""The field or column of strings that says where a text was found, as in the corpora made of Common Crawl."""

_FIELDS_SHOWN = 12


def read_text(content: Content, span: Span) -> Iterator[Document | Removal]:
    """A file is one document; a large one is several, each of some TEXT_BYTES and whole lines.

    It is decoded as what it is, piece by piece; UTF-16 in one piece alone, since it cannot be cut at a byte.
    """
    number, begin = span.first, content.position
    while (data := _text(content)) or content.gap is not None or begin == 0:
        file, size, gap = span.file, content.position - begin, content.gap
        if gap is not None and (not data or gap.measure == "unpacked" or len(data) > faults.MAX_RECORD_BYTES):
            yield content.lost(number, content.go_on())
        elif len(data) > faults.MAX_RECORD_BYTES:
            yield _costing(content, too_large(file, number, data), begin, size)
        elif b"\0" in data[:_BINARY_CHECK_BYTES] and not is_utf16(data):
            yield _costing(content, bad_record(file, number, "binary", data), begin, size)
        elif (is_utf16(data) and (begin or content.peek(1))) or (text := text_of(data)) is None:
            yield _costing(content, bad_record(file, number, "encoding", data), begin, size)
        else:
            yield document(file, number, text)
        number, begin = number + 1, content.position
        if begin == 0 or not _is_before(begin, span):
            return


def read_jsonl(content: Content, span: Span, field: str) -> Iterator[Document | Removal]:
    """One document a line: the string under `field` of the line's JSON object. Blank lines are no records."""
    number, limit, is_rest = span.first, faults.MAX_RECORD_BYTES, False
    while _is_before(content.position, span):
        begin, line = content.position, content.readline(limit + 1)
        if not line.endswith(b"\n"):
            skipped = content.skip_line() if len(line) > limit else 0
            if content.gap is not None:  # what is there of the line goes with it
                yield content.lost(number, content.go_on())
                number, is_rest = number + 1, True
                continue
            if not line:
                return
            if skipped or len(line) > limit:
                large = too_large(span.file, number, line)
                yield _costing(content, large, begin, content.position - begin)
                line = b""
        if line.strip():
            record = _parsed(span.file, number, line, field)
            if isinstance(record, Removal) and record.measure in ("json", "encoding"):
                record = _costing(content, record, begin, len(line))
            if not (is_rest and isinstance(record, Removal)):  # the end of a line that a gap has cut counts with that
                yield record
        number, is_rest = number + 1, False


def _is_before(position: int, span: Span) -> bool:
    return span.stop is None or position < span.stop


def _text(content: Content) -> bytes:
    """The next document of a text; of one that is too large, more than MAX_RECORD_BYTES of its beginning."""
    data = content.read(TEXT_BYTES)
    if len(data) == TEXT_BYTES:
        data += content.readline(max(faults.MAX_RECORD_BYTES - len(data), 0) + 1)
    if len(data) > faults.MAX_RECORD_BYTES and not data.endswith(b"\n"):
        content.skip_line()
    return data


def _costing(content: Content, record: Removal, begin: int, size: int) -> Removal:
    """A bad record with the bytes of the file that it costs; of a compressed file, a record's share is not known."""
    return record if content.is_packed else replace(record, offset=begin, unread=size)


def _parsed(file: InputFile, number: int, line: bytes, field: str) -> Document | Removal:
    decoded = None if is_utf16(line) else utf8_of(line)
    if decoded is None:
        return bad_record(file, number, "encoding", line)
    try:
        record = json.loads(decoded.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return bad_record(file, number, "json", line)
    text = _field(record, field)
    if not isinstance(text, str):
        return replace(bad_record(file, number, "textField", line), note=_fields_instead(record, field))
    url = record.get(URL_FIELD)
    return document(file, number, _encodable(text), _encodable(url) if isinstance(url, str) else "")


def _field(record: Any, name: str) -> Any:
    """The field of that name, or else along it: `doc.text` is `text` in `doc`."""
    if isinstance(record, dict) and name in record:
        return record[name]
    for part in name.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def _fields_instead(record: Any, name: str) -> str:
    if not isinstance(record, dict):
        return f"no JSON object with {name!r}"
    names = sorted(_paths(record, ""), key=lambda path: not isinstance(_field(record, path), str))
    return f"no string in {name!r}; its fields: {excerpt_of(', '.join(names[:_FIELDS_SHOWN])) or 'none'}"


def _paths(record: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in record.items():
        if isinstance(value, dict) and not prefix:
            yield from _paths(value, f"{key}.")
        else:
            yield f"{prefix}{key}"


def _encodable(text: str) -> str:
    """JSON can spell lone surrogates (`"\ud800"`), which no encoding can carry further."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
