"""How text, JSON lines and Parquet become documents, whatever is wrong with the file.

Everything is streamed, and a record larger than MAX_RECORD_BYTES is skipped, not held. In which span a record is read
makes no difference to what is read of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kindling_api.errors import DataError, explain
from kindling_dataprep.records import Document, InputFile, Removal, Span, excerpt_of
from kindling_dataprep.steps import faults
from kindling_dataprep.steps.content import Content
from kindling_dataprep.steps.encodings import is_utf16, text_of, utf8_of
from kindling_dataprep.steps.faults import bad_record, broken, document, too_large

TEXT_BYTES = 8 * 2**20
"""A document of plain text ends with the first line that ends after so many bytes; the next one begins there."""

_BINARY_CHECK_BYTES = 8000
"""A NUL byte among the first of these marks a text as binary: the rule that git uses for files."""

URL_FIELD = "url"
"""The field or column of strings that says where a text was found, as in the corpora made of Common Crawl."""

_PARQUET_BATCH_ROWS = 64
"""Rows that are decoded, and so held, at a time."""

_FIELDS_SHOWN = 12

_NOTHING = pa.nulls(1, pa.large_binary())[0]  # where pandas is installed, `pa.scalar` loads it

_PARQUET_BUFFER_BYTES = 1 << 20
"""Of a column that are read at a time; without a limit, Arrow reads the column of a whole row group."""


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


def read_parquet(stream: BinaryIO, span: Span, column: str) -> Iterator[Document | Removal]:
    """One document a row: the string in `column`. A damaged row group costs its rows alone.

    Raises:
        DataError: there is no such column, or it holds no strings.
    """
    number, file_bytes = span.first, span.file.size
    try:
        file = open_parquet(stream)
        schema, metadata = file.schema_arrow, file.metadata
    except PARQUET_ERRORS as error:
        yield broken(span.file, number, "readable", _said(error), 0, file_bytes)
        return
    check_column(schema, span.file, column)
    columns = [column, URL_FIELD] if _is_strings(schema, URL_FIELD) and column != URL_FIELD else [column]
    for group in range(span.start, metadata.num_row_groups if span.stop is None else span.stop):
        read, rows, why = 0, max(metadata.row_group(group).num_rows, 0), "the row group ends early"
        try:
            for batch in file.iter_batches(_PARQUET_BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
                urls = _column(batch, URL_FIELD) if len(columns) > 1 else [_NOTHING] * len(batch)
                for value, url in zip(_column(batch, column), urls, strict=True):
                    yield _row(span.file, number + read, value, url)
                    read += 1
        except PARQUET_ERRORS as error:
            why = _said(error)
        if read < rows:
            offset, size = _places(metadata, file_bytes)[group]
            unread = min(max(size * (rows - read) // rows, 1), size)
            yield broken(span.file, number + read, "readable", why, offset + size - unread, unread)
        number += rows


PARQUET_ERRORS = (OSError, pa.ArrowException, ValueError, OverflowError, MemoryError)
"""What Arrow raises over a damaged file."""


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _places(metadata: pq.FileMetaData, file_bytes: int) -> list[tuple[int, int]]:
    """Where in the file the columns of each row group begin, and their bytes: as the metadata has it, but one behind
    the other and within the file, whatever a damaged footer says, so that no byte is told twice.

    A byte of the row group is no more told from another than a row is.
    """
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    columns = [[group.column(index) for index in range(group.num_columns)] for group in groups]
    begins = [min((each.dictionary_page_offset or each.data_page_offset for each in own), default=0) for own in columns]
    sizes = [sum(max(each.total_compressed_size, 0) for each in own) for own in columns]
    places, end = [], 0
    for begin, size, following in zip(begins, sizes, [*begins[1:], file_bytes], strict=True):
        offset = min(max(begin, end), file_bytes)
        end = min(offset + size, file_bytes, *([following] if following > offset else []))
        places.append((offset, end - offset))
    return places


def open_parquet(stream: BinaryIO) -> pq.ParquetFile:
    """The Parquet file in a stream; reading it raises OSError or ArrowException where it is damaged.

    It is to be read without threads: one of Arrow's would hold the stream for a moment longer than the reading takes,
    and abort a process that ends just then.
    """
    return pq.ParquetFile(
        pa.PythonFile(stream, mode="r"),
        buffer_size=_PARQUET_BUFFER_BYTES,
        pre_buffer=False,
        page_checksum_verification=True,
    )


def check_column(schema: pa.Schema, file: InputFile, column: str) -> None:
    """Raises DataError where there is no such column, or it holds no strings."""
    where = f"spec.sources[{file.source}].textField"
    columns = [f"{field.name} ({field.type})" for field in schema]
    allowed = f"a column of strings out of: {', '.join(columns)}"
    if _type_of(schema, column) is None:
        found = f"{column!r}, which {file.name} does not have"
        raise DataError(explain(where, found=found, allowed=allowed, remedy="name one of these columns"))
    if not _is_strings(schema, column):
        found = f"{column!r} of type {_type_of(schema, column)} in {file.name}"
        raise DataError(explain(where, found=found, allowed=allowed, remedy="name a column of strings"))


def _is_strings(schema: pa.Schema, column: str) -> bool:
    kind = _type_of(schema, column)
    kind = kind.value_type if kind is not None and pa.types.is_dictionary(kind) else kind
    return kind is not None and any(is_kind(kind) for is_kind in _KINDS_OF_TEXT)


_KINDS_OF_TEXT = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_null),
)
"""Bytes, as Impala and old Spark write strings; and null, the type of a column in which no row has a text."""


def _type_of(schema: pa.Schema, column: str) -> pa.DataType | None:
    """Of the one column of that name, or else of the field along it; None where there is none."""
    if schema.names.count(column) == 1:
        return schema.field(column).type
    first, *others = column.split(".")
    kind = schema.field(first).type if schema.names.count(first) == 1 else None
    for name in others:
        place = kind.get_field_index(name) if kind is not None and pa.types.is_struct(kind) else -1
        kind = kind.field(place).type if kind is not None and place >= 0 else None
    return kind if others else None


def _column(batch: pa.RecordBatch, column: str) -> pa.Array:
    """The strings of a column undecoded, since a file may hold invalid UTF-8 in them."""
    if column in batch.schema.names:
        found = batch[column]
    else:
        first, *others = column.split(".")
        found = pc.struct_field(batch[first], others)
    decoded = found.dictionary_decode() if pa.types.is_dictionary(found.type) else found
    return pc.cast(decoded, pa.large_binary())


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


def _row(file: InputFile, number: int, value: pa.Scalar, url: pa.Scalar) -> Document | Removal:
    if not value.is_valid:
        return bad_record(file, number, "textField", b"")
    if value.as_buffer().size > faults.MAX_RECORD_BYTES:
        return too_large(file, number, value.as_buffer()[:1000].to_pybytes())
    data = value.as_py()
    if (text := utf8_of(data)) is None:
        return bad_record(file, number, "encoding", data)
    return document(file, number, text, url.as_py().decode("utf-8", errors="replace") if url.is_valid else "")
