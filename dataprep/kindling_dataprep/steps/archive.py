"""The records of a web archive (WARC, ISO 28500:2017), one after another, whatever is wrong with some of them.

A record whose length leads into another one, or that a gap cuts, is told with its bytes, and reading goes on where the
next one begins: at the next compressed member, or at the next version line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kindling_dataprep.records import Removal, Span
from kindling_dataprep.steps import faults
from kindling_dataprep.steps.content import Content
from kindling_dataprep.steps.faults import too_large
from kindling_dataprep.steps.stored import Gap

_BEGINS = re.compile(rb"WARC/\d\.\d+[ \t]*\r?\n(?=[A-Za-z][A-Za-z-]*[ \t]*:)")
"""A version line, and the first header."""
_VERSION = re.compile(rb"WARC/\d\.\d+[ \t]*\r?\n")
_NO_BLANK = re.compile(rb"[^\r\n]")
_LONGEST_LINE = 1 << 16
_MOST_HEADERS = 1000
_SHOWN = 1000
"""Bytes of a record that is not read."""


@dataclass(frozen=True)
class ArchiveRecord:
    """One record of an archive."""

    number: int
    headers: dict[str, str]
    """By their names in lower case."""
    block: bytes
    """Empty where another type of record was wanted."""

    @property
    def type(self) -> str:
        """The type that the record gives itself."""
        return self.headers.get("warc-type", "")


def records(content: Content, span: Span, wanted: str) -> Iterator[ArchiveRecord | Removal]:
    """All records; those of another type than `wanted` without content. A Removal stands where none can be read."""
    number = span.first
    while True:
        content.skip_to(_NO_BLANK)
        begin = content.here()
        record = _Reading(content, number, begin, wanted).record()
        if record is None and content.gap is None and not content.peek(1):
            return
        if record is None:
            content.read(1)  # what begins here is none: the next one is looked for behind it
            record = _lost(content, number, begin)
        yield record
        number += 1


class _Reading:
    """One record being read; what was taken of the content is kept, to be given back where it makes no record."""

    def __init__(self, content: Content, number: int, begin: int, wanted: str) -> None:
        self._content = content
        self._number = number
        self._begin = begin
        self._wanted = wanted
        self._taken: list[bytes] = []

    def record(self) -> ArchiveRecord | Removal | None:
        """None where none can be read; the content then stands where it was before."""
        headers = self._headers()
        length = _length(headers) if headers is not None else None
        if headers is None or length is None:
            self._give_back()
            return None
        if length > faults.MAX_RECORD_BYTES:
            return self._large(headers, length)
        block = self._content.read(length)
        self._taken.append(block)
        if len(block) < length or not self._ends_here():
            self._give_back()
            return None
        return ArchiveRecord(self._number, headers, block if self._is_wanted(headers) else b"")

    def _is_wanted(self, headers: dict[str, str]) -> bool:
        return headers.get("warc-type", "").lower() == self._wanted

    def _give_back(self) -> None:
        self._content.back(b"".join(self._taken))

    def _line(self) -> bytes:
        self._taken.append(self._content.readline(_LONGEST_LINE))
        return self._taken[-1]

    def _headers(self) -> dict[str, str] | None:
        """By name; a line that begins with a blank goes on with the one before."""
        headers: dict[str, str] = {}
        if not _VERSION.fullmatch(self._line()):
            return None
        name = ""
        for _ in range(_MOST_HEADERS):
            line = self._line()
            if not line.endswith(b"\n"):
                return None
            text = line.decode("utf-8", errors="replace")
            if not text.strip():
                return headers
            if text[0] in " \t" and name:
                headers[name] += f" {text.strip()}"
            else:
                name, _, value = text.partition(":")
                name = name.strip().lower()
                headers[name] = value.strip()
        return None

    def _large(self, headers: dict[str, str], length: int) -> ArchiveRecord | Removal:
        """A record that is not read for its size; if another begins within it, or it does not end, its length is
        wrong, and it is told with its bytes."""
        content, stop = self._content, self._content.position + length
        removal = too_large(content.file, self._number, content.peek(_SHOWN))
        if content.skip_to(_BEGINS, length) or content.position < stop:
            lost = _lost(content, self._number, self._begin)
            return replace(removal, offset=lost.offset, unread=lost.unread)
        return removal if self._is_wanted(headers) else ArchiveRecord(self._number, headers, b"")

    def _ends_here(self) -> bool:
        behind = self._content.peek(16)
        if behind.startswith((b"\r\n\r\n", b"\n\n")):
            return True
        rest = behind.lstrip(b"\r\n")
        return not rest or rest.startswith(b"WARC/")


def _length(headers: dict[str, str]) -> int | None:
    found = headers.get("content-length", "")
    return int(found) if re.fullmatch(r"[0-9]{1,18}", found) else None


def _lost(content: Content, number: int, begin: int) -> Removal:
    """Goes to the next record, over gaps if need be; what was passed over."""
    why, start = "no record, or one of another length than it says", begin
    while not content.skip_to(_BEGINS) and content.gap is not None:
        gap = content.go_on()
        why, start = gap.why, min(start, gap.start)
        if gap.measure == "unpacked":
            return content.lost(number, Gap(gap.start, gap.stop, gap.why, gap.measure))
    return content.lost(number, Gap(start, content.here(), why))
