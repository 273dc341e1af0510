"""How CSV and TSV become documents (RFC 4180): a row each, by the column that the first row names.

A row may go over several lines within quotes, so that only reading from the beginning tells where one begins.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from kindling_api.errors import DataError, explain
from kindling_dataprep.records import Document, InputFile, Removal, Span
from kindling_dataprep.steps import faults
from kindling_dataprep.steps.content import Content
from kindling_dataprep.steps.encodings import utf8_of
from kindling_dataprep.steps.faults import bad_record, document, too_large

_URL = "url"
_REREAD = 1 << 20
"""Bytes that may be given back beyond as many as were read, so that the time stays in proportion to the file."""


def read_csv(content: Content, span: Span, column: str) -> Iterator[Document | Removal]:
    """One document a row. Names ending in `.tsv` are separated by tabs, others by commas; a gap costs the row it cuts.

    Where a row's quotes are never closed, or closed in what would be another row, the row is its first line: one quote
    too many costs no more, and one within a text (`a 5" disk`) nothing.

    Raises:
        DataError: the first row does not name the column.
    """
    separator = "\t" if ".tsv" in PurePosixPath(span.file.path.lower()).suffixes else ","
    names: list[str] | None = None
    number, file, reread = span.first, span.file, 0
    while True:
        begin = content.position
        row, again = _row(content, separator, most=begin - reread + _REREAD)
        reread += again
        if content.gap is not None and not row.endswith(b"\n"):
            yield content.lost(number, content.go_on())
            number += 1
            continue
        if not row:
            return
        if not row.strip():
            continue
        fields = _fields(row, separator)
        if names is None and fields is not None:
            names = fields
            _check(names, file, column)
            continue
        record = _record(file, number, row, fields, names or [], column)
        if isinstance(record, Removal) and record.measure != "textField" and not content.is_packed:
            record = replace(record, offset=begin, unread=content.position - begin)
        yield record
        number += 1


def _row(content: Content, separator: str, most: int) -> tuple[bytes, int]:
    """Lines until all quotes are closed; of a row that is too large, more than MAX_RECORD_BYTES. Where the lines are no
    one row, it is the first of them, and the others, `most` bytes at most, are given back: how many that is."""
    lines, quotes, size = [], 0, 0
    while size <= faults.MAX_RECORD_BYTES and (line := content.readline(faults.MAX_RECORD_BYTES + 1)):
        lines.append(line)
        quotes += line.count(b'"')
        size += len(line)
        if line.endswith(b"\n") and quotes % 2 == 0:
            break
    row, rest = b"".join(lines), b"".join(lines[1:])
    if 0 < len(rest) <= most and (quotes % 2 or _fields(row, separator) == []):
        content.back(rest)
        return lines[0], len(rest)
    if size > faults.MAX_RECORD_BYTES and not row.endswith(b"\n"):
        content.skip_line()
    return row, 0


def _fields(row: bytes, separator: str) -> list[str] | None:
    """None where the row is too large, or no text; empty where it is several."""
    text = utf8_of(row) if len(row) <= faults.MAX_RECORD_BYTES else None
    if text is None:
        return None
    csv.field_size_limit(2 * faults.MAX_RECORD_BYTES)
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=separator))
    return rows[0] if len(rows) == 1 else []


def _check(names: list[str], file: InputFile, column: str) -> None:
    if names.count(column) != 1:
        found = f"{column!r}, which the first row of {file.name} does not name once"
        where, allowed = f"spec.sources[{file.source}].textField", f"one of: {', '.join(names)[:1000]}"
        raise DataError(explain(where, found=found, allowed=allowed, remedy="name one of these columns"))


def _record(
    file: InputFile, number: int, row: bytes, fields: list[str] | None, names: list[str], column: str
) -> Document | Removal:
    if len(row) > faults.MAX_RECORD_BYTES:
        return too_large(file, number, row)
    if fields is None:
        return bad_record(file, number, "encoding", row)
    if len(fields) != len(names):
        return bad_record(file, number, "row", row)
    values = dict(zip(names, fields, strict=True))
    return document(file, number, values[column], values.get(_URL, ""))
