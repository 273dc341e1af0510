"""What is in a file, compressed or not, as a stream that ends at each place that cannot be read and goes on behind it.

Reading never fails and loses nothing before a gap: a short answer means the end of the file, or that `gap` is set.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import BinaryIO

from kindling_dataprep.records import InputFile, Remark, Removal, Span
from kindling_dataprep.steps import faults, unpack
from kindling_dataprep.steps.stored import Gap, Ignored, Stored
from kindling_storage.jsonl import MAX_RECORD_BYTES, most_unpacked

_OVERLAP = 256
"""Bytes that are kept while a pattern is searched for: more than any pattern matches."""


class Content:
    """The content of a span's file from the beginning of the span on.

    `position` counts its bytes as unpacked, from the beginning of the file.
    """

    def __init__(self, stream: BinaryIO, span: Span, window: int = unpack.LONGEST_WINDOW) -> None:
        if span.start:
            stream.seek(span.start)
        self.file = span.file
        self.position = span.start
        self.gap: Gap | None = None
        """Where the content ends for now."""
        self.is_packed = unpack.is_packed(span.file.path)
        self._stop = span.file.size if span.stop is None else span.stop
        self._chunks = unpack.chunks(Stored(stream, span.start, span.stop), span.file.path, window)
        self._buffer, self._index = b"", 0
        self._begins: list[tuple[int, int]] = []
        self._ignored: list[Ignored] = []
        self._unpacked = 0
        self._accounted = span.start
        self._ended = False

    def read(self, count: int) -> bytes:
        """The next bytes, fewer than `count` before a gap or at the end alone."""
        parts = []
        while count and (self._index < len(self._buffer) or self._fill()):
            parts.append(self._buffer[self._index : self._index + count])
            self._pass(len(parts[-1]))
            count -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readline(self, count: int) -> bytes:
        """The next bytes up to a line's end, `count` at most."""
        searched = 0
        while True:
            end = self._buffer.find(b"\n", self._index + searched, self._index + count) + 1
            if end:
                return self.read(end - self._index)
            searched = len(self._buffer) - self._index
            if searched >= count or not self._fill():
                return self.read(min(searched, count))

    def peek(self, count: int) -> bytes:
        """The next bytes, which stay unread."""
        while len(self._buffer) - self._index < count and self._fill():
            pass
        return self._buffer[self._index : self._index + count]

    def back(self, data: bytes) -> None:
        """Unreads `data`, which was read last."""
        self._buffer, self._index = data + self._buffer[self._index :], 0
        self.position -= len(data)

    def skip_line(self) -> int:
        """Reads to the end of the line; how many bytes that was."""
        start = self.position
        while (line := self.readline(MAX_RECORD_BYTES)) and not line.endswith(b"\n"):
            pass
        return self.position - start

    def skip_to(self, pattern: re.Pattern[bytes], most: int | None = None) -> bool:
        """Reads up to where `pattern` matches, up to `most` bytes; whether it does."""
        end = None if most is None else self.position + most
        while True:
            found = pattern.search(self._buffer, self._index)
            left = None if end is None else end - self.position
            if found is not None and (left is None or found.start() - self._index < left):
                self._pass(found.start() - self._index)
                return True
            passed = max(len(self._buffer) - self._index - _OVERLAP, 0)
            if left is not None and left <= passed:
                self._pass(left)
                return False
            self._pass(passed)
            if not self._fill():
                rest = len(self._buffer) - self._index
                self._pass(rest if end is None else min(rest, end - self.position))
                return False

    def go_on(self) -> Gap:
        """Goes on behind the gap, which is returned."""
        gap, self.gap = self.gap, None
        assert gap is not None, "there is a gap"
        return gap

    def here(self) -> int:
        """Where in the file, as stored, the next byte comes from; of a compressed file, at the latest."""
        if not self.peek(1):
            return self.gap.stop if self.gap is not None else self._stop
        if not self.is_packed:
            return self.position
        return self._begins[bisect_right(self._begins, (self.position, self._stop)) - 1][1]

    def lost(self, number: int, gap: Gap) -> Removal:
        """What stands in the ledger for a gap, as record `number`; no byte is counted twice."""
        start = max(gap.start, self._accounted)
        self._accounted = max(gap.stop, start)
        return faults.broken(self.file, number, gap.measure, gap.why, start, self._accounted - start)

    def remarks(self) -> list[Remark]:
        """What was passed over and held nothing."""
        path = self.file.name
        return [Remark(path, each.start, each.stop - each.start, f"{each.what}, ignored") for each in self._ignored]

    def _pass(self, count: int) -> None:
        self._index += count
        self.position += count

    def _fill(self) -> bool:
        """Whether more content came: not at a gap, nor at the end."""
        while self.gap is None and not self._ended:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._ended = True
            elif isinstance(chunk, Ignored):
                self._ignored.append(chunk)
            elif isinstance(chunk, Gap):
                at_end = chunk.start == chunk.stop  # nobody knows how much cannot be read
                self.gap = Gap(chunk.start, self._stop, chunk.why) if at_end else chunk
            elif self._is_too_much(len(chunk.data)):
                most = f"more than {self._most():,} bytes"
                self.gap, self._ended = Gap(0, self._stop, most, "unpacked"), True
            else:
                self._note(chunk.start)
                self._buffer, self._index = self._buffer[self._index :] + chunk.data, 0
                return True
        return False

    def _is_too_much(self, more: int) -> bool:
        self._unpacked += more
        return self.is_packed and self._unpacked > self._most()

    def _most(self) -> int:
        return most_unpacked(self.file.size)

    def _note(self, stored: int) -> None:
        """Of a compressed file: where its chunks begin, those of the last few records."""
        if self.is_packed:
            self._begins.append((self.position + len(self._buffer) - self._index, stored))
            if self._begins[len(self._begins) // 2][0] < self.position - 2 * MAX_RECORD_BYTES:
                del self._begins[: len(self._begins) // 2]


def whole_content(stream: BinaryIO, file: InputFile) -> Content:
    """The content of a file from its beginning on."""
    return Content(stream, Span.whole(file))
