"""The first pass over a file: its digest, and where it can be cut into spans.

Every byte is read for the digest anyway, so the line ends are found on the way, and their number: a record has the same
number, and so the same id, whichever span it is read in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kindling_dataprep.records import InputFile, Span
from kindling_dataprep.steps.formats import TEXT_BYTES
from kindling_dataprep.steps.parquet import check_column
from kindling_dataprep.steps.parquet_reader import DamagedError, ParquetReader
from kindling_dataprep.steps.unpack import is_packed
from kindling_storage import ObjectStore
from kindling_storage.atomic import CHUNK_BYTES

SPAN_BYTES = 1 << 20
"""A span of JSON lines ends with the first line that ends after so many bytes."""


def scan(store: ObjectStore, named: InputFile, text_field: str) -> list[Span]:
    """The spans of one file, in order, with its size, digest and etag filled in. An empty file has one, too.

    Args:
        store: Where the file lies.
        named: Source, place and format are read.
        text_field: The column of a Parquet file that holds the text.

    Raises:
        DataError: a Parquet file lacks the column, or it holds no text.
        NotFoundError: there is no such file.
    """
    info = store.info(named.path)
    digest, size = hashlib.sha256(), 0
    cutter = _cutter(named)
    with store.open(named.path) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            if cutter is not None:
                cutter.feed(chunk)
    file = replace(named, size=size, digest=f"sha256:{digest.hexdigest()}", etag=info.etag)
    if file.format == "parquet":
        return _row_groups(store, file, text_field)
    return [Span.whole(file)] if cutter is None else list(cutter.spans(file))


def _cutter(named: InputFile) -> _Cutter | None:
    if is_packed(named.path) or named.format in ("parquet", "csv", "html", "warc", "wet"):
        return None
    return _Cutter(SPAN_BYTES, by_line=True) if named.format == "jsonl" else _Cutter(TEXT_BYTES, by_line=False)


@dataclass
class _Cutter:
    """Finds the beginnings of spans: each is the first line that begins after `every` bytes of the one before."""

    every: int
    by_line: bool
    """Whether each line is a record, or each span."""

    def __post_init__(self) -> None:
        self._starts = [(0, 1)]  # byte, and number of the record there
        self._position = 0
        self._lines = 0

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the file."""
        counted = 0
        while (due := self._starts[-1][0] + self.every - self._position) < len(chunk):
            end = chunk.find(b"\n", max(due, 0)) + 1
            if not end:
                break
            self._lines += chunk.count(b"\n", counted, end)
            counted = end
            self._starts.append((self._position + end, 1 + (self._lines if self.by_line else len(self._starts))))
        self._lines += chunk.count(b"\n", counted) if self.by_line else 0
        self._position += len(chunk)

    def spans(self, file: InputFile) -> Iterator[Span]:
        """The spans of the file, all of whose bytes have been fed."""
        starts = [start for start in self._starts if start[0] < file.size] or [(0, 1)]
        stops = [*(byte for byte, _ in starts[1:]), file.size]
        for (byte, number), stop in zip(starts, stops, strict=True):
            yield Span(file, byte, stop, number, stop - byte)


def _row_groups(store: ObjectStore, file: InputFile, text_field: str) -> list[Span]:
    """A span for each row group; one for a file that cannot be read, so that the reader says why."""
    with store.open(file.path) as stream, ParquetReader(stream, file.size, text_field) as opened:
        try:
            opened.open()
        except DamagedError:
            return [Span.whole(file)]
    check_column(opened.schema, file, text_field)
    spans, number = [], 1
    for index, group in enumerate(opened.groups):
        spans.append(Span(file, index, index + 1, number, group.text_bytes))
        number += group.rows
    return spans or [Span.whole(file)]
