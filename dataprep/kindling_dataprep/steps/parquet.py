"""How rows of Parquet become documents, whatever is wrong with the file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from kindling_api.errors import DataError, explain
from kindling_dataprep.records import Document, InputFile, Removal, Span
from kindling_dataprep.steps import faults
from kindling_dataprep.steps.encodings import utf8_of
from kindling_dataprep.steps.faults import bad_record, broken, document, too_large
from kindling_dataprep.steps.formats import URL_FIELD
from kindling_dataprep.steps.parquet_process import DAMAGES, RowGroup
from kindling_dataprep.steps.parquet_reader import DamagedError, ParquetReader

_NOTHING = pa.nulls(1, pa.large_binary())[0]  # where pandas is installed, `pa.scalar` loads it


def read_parquet(stream: BinaryIO, span: Span, column: str) -> Iterator[Document | Removal]:
    """One document a row: the string in `column`. A damaged row group costs its rows alone.

    Raises:
        DataError: there is no such column, or it holds no strings.
    """
    number = span.first
    with ParquetReader(stream, span.file.size, column) as file:
        try:
            file.open()
        except DamagedError as error:
            yield broken(span.file, number, "readable", str(error), 0, span.file.size)
            return
        check_column(file.schema, span.file, column)
        with_url = _is_strings(file.schema, URL_FIELD) and column != URL_FIELD
        columns = [column, URL_FIELD] if with_url else [column]
        for group in range(span.start, len(file.groups) if span.stop is None else span.stop):
            read, rows, why = 0, file.groups[group].rows, "the row group ends early"
            try:
                for batch in file.batches(group, columns):
                    urls = _column(batch, URL_FIELD) if with_url else [_NOTHING] * len(batch)
                    for value, url in zip(_column(batch, column), urls, strict=True):
                        yield _row(span.file, number + read, value, url)
                        read += 1
            except DAMAGES as error:
                why = str(error) or type(error).__name__
            if read < rows:
                offset, size = places(file.groups, span.file.size)[group]
                unread = min(max(size * (rows - read) // rows, 1), size)
                yield broken(span.file, number + read, "readable", why, offset + size - unread, unread)
            number += rows
        known = sum(group.rows for group in file.groups)
        if known < file.rows and span.stop in (None, len(file.groups)):
            why = f"the footer tells of {file.rows:,} rows, and where {known:,} of them are"
            yield broken(span.file, number, "readable", why, span.file.size, 0)


def places(groups: list[RowGroup], file_bytes: int) -> list[tuple[int, int]]:
    """Where in the file each row group begins, and its bytes: as the footer has it, but one behind the other and within
    the file, whatever a damaged footer says, so that no byte is told twice.

    A byte of the row group is no more told from another than a row is.
    """
    found, end = [], 0
    for group, following in pairwise([*groups, RowGroup(0, file_bytes, 0, 0)]):
        offset = min(max(group.begin, end), file_bytes)
        end = min(offset + group.size, file_bytes, *([following.begin] if following.begin > offset else []))
        found.append((offset, end - offset))
    return found


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


def _row(file: InputFile, number: int, value: pa.Scalar, url: pa.Scalar) -> Document | Removal:
    if not value.is_valid:
        return bad_record(file, number, "textField", b"")
    if value.as_buffer().size > faults.MAX_RECORD_BYTES:
        return too_large(file, number, value.as_buffer()[:1000].to_pybytes())
    data = value.as_py()
    if (text := utf8_of(data)) is None:
        return bad_record(file, number, "encoding", data)
    return document(file, number, text, url.as_py().decode("utf-8", errors="replace") if url.is_valid else "")
