"""How each format becomes documents, whatever is wrong with the file.

One damaged record must not cost the records around it, and no input may take more memory than its records are allowed:
everything is streamed, and a record larger than MAX_RECORD_BYTES is skipped, not held. Whatever cannot be read is
yielded in its place as a Removal by `badRecord`, whose measure, one of FAULTS, says what failed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kindling_api.errors import DataError, explain
from kindling_dataprep.records import BAD_RECORD, Document, InputFile, Removal, excerpt_of

MAX_RECORD_BYTES = 64 * 2**20
"""Larger records are not read: while a document is measured it takes many times its size in memory."""

FAULTS = {
    "binary": "no text",
    "bytes": "too large",
    "json": "no JSON",
    "textField": "no string in its textField",
    "readable": "the file is damaged from here on",
}
"""What the measure of a bad record means."""

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}

_BINARY_CHECK_BYTES = 8000
"""A NUL byte among the first of these marks a file as binary: the rule that git uses."""

_UNPACKING_BYTES = 1 << 14
"""How much is unpacked at a time, and so how much before a damaged place may be lost with it."""

_PARQUET_BATCH_ROWS = 64
"""Rows that are decoded, and so held, at a time."""


def read_text(stream: BinaryIO, input: InputFile) -> Iterator[Document | Removal]:
    """One document: the whole file, its invalid UTF-8 replaced by U+FFFD (whose share `repair` judges)."""
    try:
        data = _unpacked(stream, input.path).read(MAX_RECORD_BYTES + 1)
    except OSError as error:
        yield _broken(input, 1, error)
        return
    if len(data) > MAX_RECORD_BYTES:
        yield _too_large(input, 1, data)
    elif b"\0" in data[:_BINARY_CHECK_BYTES]:
        yield _bad_record(input, 1, "binary", data)
    else:
        yield _document(input, 1, data.decode("utf-8", errors="replace"))


def read_jsonl(stream: BinaryIO, input: InputFile, field: str) -> Iterator[Document | Removal]:
    """One document a line: the string under `field` of the line's JSON object. Blank lines are no records."""
    lines = _unpacked(stream, input.path)
    number = 0
    try:
        while line := lines.readline(MAX_RECORD_BYTES + 1):
            number += 1
            if len(line) > MAX_RECORD_BYTES and not line.endswith(b"\n"):
                yield _too_large(input, number, line)
                while line and not line.endswith(b"\n"):
                    line = lines.readline(MAX_RECORD_BYTES)
            elif line.strip():
                yield _parsed(input, number, line, field)
    except OSError as error:
        yield _broken(input, number + 1, error)


def read_parquet(stream: BinaryIO, input: InputFile, column: str) -> Iterator[Document | Removal]:
    """One document a row: the string in `column`.

    Raises:
        DataError: there is no such column, or it holds no strings.
    """
    number = 0
    try:
        file = pq.ParquetFile(pa.PythonFile(stream, mode="r"))
        _check_column(file.schema_arrow, input, column)
        for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS, columns=[column]):
            for value in _as_binary(batch.column(0)):
                number += 1
                yield _row(input, number, value)
    except (OSError, pa.ArrowException) as error:
        yield _broken(input, number + 1, error)


def _unpacked(stream: BinaryIO, path: str) -> BinaryIO:
    """The stream, decompressed as its suffix says; a read raises OSError where the compressed data is damaged."""
    compression = COMPRESSIONS.get(PurePosixPath(path.lower()).suffix)
    if compression is None:
        return stream
    unpacked = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), compression)
    return io.BufferedReader(cast(io.RawIOBase, unpacked), buffer_size=_UNPACKING_BYTES)


def _parsed(input: InputFile, number: int, line: bytes, field: str) -> Document | Removal:
    try:
        record = json.loads(line.decode("utf-8", errors="replace").lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return _bad_record(input, number, "json", line)
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        return _bad_record(input, number, "textField", line)
    # JSON can spell lone surrogates (`"\ud800"`), which no encoding can carry further
    return _document(input, number, text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _check_column(schema: pa.Schema, input: InputFile, column: str) -> None:
    where = f"spec.sources[{input.source}].textField"
    columns = [f"{field.name} ({field.type})" for field in schema]
    allowed = f"a column of strings out of: {', '.join(columns)}"
    if column not in schema.names:
        found = f"{column!r}, which {input.path} does not have"
        raise DataError(explain(where, found=found, allowed=allowed, remedy="name one of these columns"))
    kind = schema.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        found = f"{column!r} of type {kind} in {input.path}"
        raise DataError(explain(where, found=found, allowed=allowed, remedy="name a column of strings"))


def _as_binary(column: pa.Array) -> pa.Array:
    """The strings of a column undecoded, since a file may hold invalid UTF-8 in them."""
    decoded = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return pc.cast(decoded, pa.large_binary())


def _row(input: InputFile, number: int, value: pa.Scalar) -> Document | Removal:
    if not value.is_valid:
        return _bad_record(input, number, "textField", b"")
    if value.as_buffer().size > MAX_RECORD_BYTES:
        return _too_large(input, number, value.as_buffer()[:1000].to_pybytes())
    return _document(input, number, value.as_py().decode("utf-8", errors="replace"))


def _document(input: InputFile, number: int, text: str) -> Document:
    return Document(_id(input, number), input.source, text)


def _too_large(input: InputFile, number: int, beginning: bytes) -> Removal:
    return _bad_record(input, number, "bytes", beginning, threshold=float(MAX_RECORD_BYTES))


def _broken(input: InputFile, number: int, error: Exception) -> Removal:
    """The rest of a file that cannot be read further, as one record."""
    return _bad_record(input, number, "readable", str(error).encode())


def _bad_record(input: InputFile, number: int, measure: str, excerpt: bytes, threshold: float | None = None) -> Removal:
    return Removal(
        id=_id(input, number),
        rule=BAD_RECORD,
        measure=measure,
        value=None,
        threshold=threshold,
        excerpt=excerpt_of(excerpt),
    )


def _id(input: InputFile, number: int) -> str:
    return f"{input.source}/{input.path}#{number}"
