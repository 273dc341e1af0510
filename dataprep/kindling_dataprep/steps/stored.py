"""A file as stored: its bytes, and the stretches of it that are content, or cannot be read, or hold nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

READ = 1 << 16
"""Bytes that are read of a file at a time, at least."""


@dataclass(frozen=True)
class Gap:
    """A stretch of a file, as stored, that cannot be read."""

    start: int
    stop: int
    why: str
    measure: str = "readable"
    """One of FAULTS."""


@dataclass(frozen=True)
class Ignored:
    """A stretch of a file that belongs to no member, and holds nothing."""

    start: int
    stop: int
    what: str


@dataclass(frozen=True)
class Chunk:
    """Content, and where in the file it comes from."""

    start: int
    data: bytes


class Stored:
    """The bytes of a file as stored, from `position` to before `stop`."""

    def __init__(self, stream: BinaryIO, position: int = 0, stop: int | None = None) -> None:
        self.position = position
        self._stream = stream
        self._left = None if stop is None else stop - position
        self._buffer, self._index = b"", 0

    def peek(self, count: int) -> bytes:
        """The next bytes, fewer than `count` at the end alone."""
        while len(self._buffer) - self._index < count:
            wanted = max(READ, count)
            chunk = self._stream.read(wanted if self._left is None else min(wanted, self._left))
            if not chunk:
                break
            self._left = None if self._left is None else self._left - len(chunk)
            self._buffer, self._index = self._buffer[self._index :] + chunk, 0
        return self._buffer[self._index : self._index + count]

    def take(self, count: int) -> bytes:
        """The next `count` bytes, which then count as read."""
        data = self.peek(count)
        self._index += len(data)
        self.position += len(data)
        return data

    def back(self, count: int) -> None:
        """Unreads the last `count` bytes of those taken last."""
        self._index -= count
        self.position -= count
