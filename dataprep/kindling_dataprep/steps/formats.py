"""How text, JSON lines and Parquet become documents, whatever is wrong with the file.

Everything is streamed, and a record larger than MAX_RECORD_BYTES is skipped, not held. In which span a record is read
makes no difference to what is read of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kindling_api.errors import DataError, explain
from kindling_dataprep.records import Document, InputFile, Removal, Span
from kindling_dataprep.steps import faults
from kindling_dataprep.steps.faults import bad_record, broken, document, too_large
from kindling_dataprep.steps.unpack import unpacked

TEXT_BYTES = 8 * 2**20
"""A document of plain text ends with the first line that ends after so many bytes; the next one begins there."""

_BINARY_CHECK_BYTES = 8000
"""A NUL byte among the first of these marks a text as binary: the rule that git uses for files."""

URL_FIELD = "url"
"""The field or column of strings that says where a text was found, as in the corpora made of Common Crawl."""

_PARQUET_BATCH_ROWS = 64
"""Rows that are decoded, and so held, at a time."""

_NOTHING = pa.scalar(None, pa.large_binary())

_PARQUET_BUFFER_BYTES = 1 << 20
"""Of a column that are read at a time; without a limit, Arrow reads the column of a whole row group."""


def read_text(stream: BinaryIO, span: Span) -> Iterator[Document | Removal]:
    """A file is one document; a large one is several, each of some TEXT_BYTES and whole lines.

    Invalid UTF-8 is replaced by U+FFFD, whose share `repair` judges.
    """
    content, number = _at(stream, span), span.first
    try:
        for data in _texts(content, span):
            if len(data) > faults.MAX_RECORD_BYTES:
                yield too_large(span.file, number, data)
            elif b"\0" in data[:_BINARY_CHECK_BYTES]:
                yield bad_record(span.file, number, "binary", data)
            else:
                yield document(span.file, number, data.decode("utf-8", errors="replace"))
            number += 1
    except OSError as error:
        yield broken(span.file, number, error)


def read_jsonl(stream: BinaryIO, span: Span, field: str) -> Iterator[Document | Removal]:
    """One document a line: the string under `field` of the line's JSON object. Blank lines are no records."""
    content, number, position = _at(stream, span), span.first, span.start
    limit = faults.MAX_RECORD_BYTES
    try:
        while _is_before(position, span) and (line := content.readline(limit + 1)):
            position += len(line)
            if len(line) > limit and not line.endswith(b"\n"):
                yield too_large(span.file, number, line)
                position += _skip_line(content)
            elif line.strip():
                yield _parsed(span.file, number, line, field)
            number += 1
    except OSError as error:
        yield broken(span.file, number, error)


def read_parquet(stream: BinaryIO, span: Span, column: str) -> Iterator[Document | Removal]:
    """One document a row: the string in `column`. A damaged row group costs its rows alone.

    Raises:
        DataError: there is no such column, or it holds no strings.
    """
    number = span.first
    try:
        file = open_parquet(stream)
    except (OSError, pa.ArrowException) as error:
        yield broken(span.file, number, error)
        return
    check_column(file.schema_arrow, span.file, column)
    columns = [column, URL_FIELD] if _is_strings(file.schema_arrow, URL_FIELD) and column != URL_FIELD else [column]
    stop = file.num_row_groups if span.stop is None else span.stop
    for group in range(span.start, stop):
        read = 0
        try:
            for batch in file.iter_batches(_PARQUET_BATCH_ROWS, row_groups=[group], columns=columns):
                urls = _as_binary(batch[URL_FIELD]) if len(columns) > 1 else [_NOTHING] * len(batch)
                for value, url in zip(_as_binary(batch[column]), urls, strict=True):
                    yield _row(span.file, number + read, value, url)
                    read += 1
        except (OSError, pa.ArrowException) as error:
            yield broken(span.file, number + read, error)
        number += file.metadata.row_group(group).num_rows


def open_parquet(stream: BinaryIO) -> pq.ParquetFile:
    """The Parquet file in a stream; reading it raises OSError or ArrowException where it is damaged."""
    return pq.ParquetFile(pa.PythonFile(stream, mode="r"), buffer_size=_PARQUET_BUFFER_BYTES, pre_buffer=False)


def check_column(schema: pa.Schema, file: InputFile, column: str) -> None:
    """Raises DataError where there is no such column, or it holds no strings."""
    where = f"spec.sources[{file.source}].textField"
    columns = [f"{field.name} ({field.type})" for field in schema]
    allowed = f"a column of strings out of: {', '.join(columns)}"
    if column not in schema.names:
        found = f"{column!r}, which {file.path} does not have"
        raise DataError(explain(where, found=found, allowed=allowed, remedy="name one of these columns"))
    if not _is_strings(schema, column):
        found = f"{column!r} of type {schema.field(column).type} in {file.path}"
        raise DataError(explain(where, found=found, allowed=allowed, remedy="name a column of strings"))


def _is_strings(schema: pa.Schema, column: str) -> bool:
    if schema.names.count(column) != 1:
        return False
    kind = schema.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _at(stream: BinaryIO, span: Span) -> BinaryIO:
    """The content of the file from the beginning of the span on."""
    if span.start:
        stream.seek(span.start)
    return unpacked(stream, span.file)


def _is_before(position: int, span: Span) -> bool:
    return span.stop is None or position < span.stop


def _texts(content: BinaryIO, span: Span) -> Iterator[bytes]:
    """The documents of a text; of one that is too large, more than MAX_RECORD_BYTES of its beginning."""
    position = span.start
    while (data := content.read(TEXT_BYTES)) or position == 0:
        if len(data) == TEXT_BYTES:
            data += content.readline(max(faults.MAX_RECORD_BYTES - len(data), 0) + 1)
        position += len(data)
        if len(data) > faults.MAX_RECORD_BYTES and not data.endswith(b"\n"):
            position += _skip_line(content)
        yield data
        if not data or not _is_before(position, span):
            return


def _skip_line(content: BinaryIO) -> int:
    """Reads to the end of the line; how many bytes that was."""
    skipped = 0
    while line := content.readline(TEXT_BYTES):
        skipped += len(line)
        if line.endswith(b"\n"):
            break
    return skipped


def _parsed(file: InputFile, number: int, line: bytes, field: str) -> Document | Removal:
    try:
        record = json.loads(line.decode("utf-8", errors="replace").lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return bad_record(file, number, "json", line)
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        return bad_record(file, number, "textField", line)
    url = record.get(URL_FIELD)
    return document(file, number, _encodable(text), _encodable(url) if isinstance(url, str) else "")


def _encodable(text: str) -> str:
    """JSON can spell lone surrogates (`"\ud800"`), which no encoding can carry further."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _as_binary(column: pa.Array) -> pa.Array:
    """The strings of a column undecoded, since a file may hold invalid UTF-8 in them."""
    decoded = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return pc.cast(decoded, pa.large_binary())


def _row(file: InputFile, number: int, value: pa.Scalar, url: pa.Scalar) -> Document | Removal:
    if not value.is_valid:
        return bad_record(file, number, "textField", b"")
    if value.as_buffer().size > faults.MAX_RECORD_BYTES:
        return too_large(file, number, value.as_buffer()[:1000].to_pybytes())
    text, where = (each.as_py().decode("utf-8", errors="replace") if each.is_valid else "" for each in (value, url))
    return document(file, number, text, where)
