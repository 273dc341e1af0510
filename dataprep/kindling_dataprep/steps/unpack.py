"""Compressed files as streams, in bounded memory."""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

import pyarrow as pa

from kindling_dataprep.records import InputFile
from kindling_dataprep.steps.faults import MOST_UNPACKED, Bomb

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}

_UNPACKING_BYTES = 1 << 14
"""How much is unpacked at a time, and so how much before a damaged place may be lost with it."""

_NEVER_TOO_MUCH = 64 << 20
"""Bytes that any file may unpack to, however small it is."""


def is_packed(path: str) -> bool:
    """Whether the file's suffix says that it is compressed."""
    return _compression(path) is not None


def unpacked(stream: BinaryIO, file: InputFile) -> BinaryIO:
    """The content of a file, decompressed as its suffix says.

    A read raises OSError where the compressed data is damaged, and Bomb where it becomes too much.
    """
    compression = _compression(file.path)
    if compression is None:
        return stream
    packed = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), compression)
    return cast(BinaryIO, io.BufferedReader(_Unpacked(packed, file.size), buffer_size=_UNPACKING_BYTES))


class _Unpacked(io.RawIOBase):
    """The decompressed bytes, up to a limit."""

    def __init__(self, packed: pa.NativeFile, size: int) -> None:
        super().__init__()
        self._packed = packed
        self._position = 0
        self._most = max(MOST_UNPACKED * size, _NEVER_TOO_MUCH)

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._packed.read(len(view))
        view[: len(data)] = data
        self._position += len(data)
        if self._position > self._most:
            raise Bomb(f"more than {self._most:,} bytes")
        return len(data)


def _compression(path: str) -> str | None:
    return _COMPRESSIONS.get(PurePosixPath(path.lower()).suffix)
