"""The process in which Parquet files are read: what a damaged one does to Arrow ends this process, and no other.

Arrow trusts a footer. One whose tables do not fit together makes it abort, or read where nothing is, and a damaged page
asks for gigabytes; none of this can be caught. So this process has Arrow and little else, and its memory is bounded. It
opens no file: it asks its parent, who has the store, for the bytes. Messages are JSON, each of a type with an argument;
bytes follow in a message of their own.
"""

from __future__ import annotations

import io
import json
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

BATCH_ROWS = 64
"""Rows that are decoded, and so held, at a time."""
BUFFER_BYTES = 1 << 20
"""Of a column that are read at a time; without a limit, Arrow reads the column of a whole row group."""

DAMAGES = (OSError, pa.ArrowException, ValueError, OverflowError, MemoryError)
"""What Arrow raises over a damaged file, here or where what was read of it is made use of."""

Type = Literal["ready", "open", "opened", "group", "batch", "end", "damaged", "read"]


class RowGroup(NamedTuple):
    """Where the columns of a row group are."""

    rows: int
    """Or values of the column that is read, where the footer tells of more."""
    begin: int
    """The first byte."""
    size: int
    """Bytes as stored."""
    text_bytes: int
    """Of the column that is read, unpacked."""


def main(descriptor: int, most_bytes: int) -> None:
    """Read one file after another, until the parent is gone; no more than `most_bytes` are held of one."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(FileNotFoundError, ValueError):  # where there is no /proc, or less is allowed
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + most_bytes, resource.RLIM_INFINITY))
    with suppress(EOFError, ConnectionError), Connection(descriptor) as parent:
        file: pq.ParquetFile | None = None
        while True:
            kind, asked = receive(parent)
            try:
                if kind == "ready":
                    send(parent, "ready")
                elif kind == "open":
                    file = None
                    file = _open(parent, asked["size"])
                    send(
                        parent,
                        "opened",
                        {"rows": file.metadata.num_rows, "groups": _row_groups(file.metadata, asked["column"])},
                    )
                    parent.send_bytes(file.schema_arrow.serialize())
                else:
                    assert file is not None, "a file is opened before it is read"
                    for batch in _batches(file, asked["group"], asked["columns"]):
                        send(parent, "batch")
                        parent.send_bytes(batch)
                    send(parent, "end")
            except DAMAGES as error:
                send(parent, "damaged", str(error) or type(error).__name__)


def send(to: Connection, kind: Type, argument: Any = None) -> None:
    """One message."""
    to.send_bytes(json.dumps([kind, argument]).encode())


def receive(of: Connection) -> tuple[Type, Any]:
    """The next message."""
    kind, argument = json.loads(of.recv_bytes())
    return kind, argument


def _open(parent: Connection, size: int) -> pq.ParquetFile:
    """It is read without threads: one of Arrow's would ask for bytes while another does."""
    stream = pa.PythonFile(_Asked(parent, size), mode="r")
    return pq.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)


def _row_groups(metadata: pq.FileMetaData, column: str) -> list[RowGroup]:
    found = []
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        parts = [group.column(number) for number in range(group.num_columns)]
        begin = min((part.dictionary_page_offset or part.data_page_offset for part in parts), default=0)
        size = sum(max(part.total_compressed_size, 0) for part in parts)
        texts = [part for part in parts if part.path_in_schema == column]
        rows = max(0, group.num_rows, *(part.num_values for part in texts))
        found.append(RowGroup(rows, begin, size, max(sum(part.total_uncompressed_size for part in texts), 0)))
    return found


def _batches(file: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[pa.Buffer]:
    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        yield sink.getvalue()


class _Asked(io.RawIOBase):
    """A file of which the parent has the bytes."""

    def __init__(self, parent: Connection, size: int) -> None:
        self._parent, self._size, self._position = parent, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, length: int = -1) -> bytes:
        left = self._size - self._position
        length = left if length < 0 else min(length, left)
        if length <= 0 or self._position < 0:
            return b""
        send(self._parent, "read", [self._position, length])
        data = self._parent.recv_bytes()
        self._position += len(data)
        return data


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
