"""JSON lines, whatever is wrong with some of them: a bad line costs itself alone, and too large a one is not held."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from kindling_api.errors import DataError, explain
from kindling_api.v1alpha1.dataset_build import BadRecords

MAX_RECORD_BYTES = 16 * 2**20
"""Larger records are not read: while one is looked at, it takes many times its size in memory."""
MOST_UNPACKED = 200
"""Times its size that a compressed file may unpack to; text packs to a tenth, or a fiftieth where it repeats itself."""
NEVER_TOO_MUCH = 64 << 20
"""Bytes that any file may unpack to, however small it is."""
MOST_UNREADABLE = BadRecords().max_fraction
"""The largest part of some records that may be unreadable."""

_SKIPPED_AT_ONCE = 1 << 20
_REMEDY = "correct the line, or take it out; blank lines are no records"


def most_unpacked(size: int) -> int:
    """The bytes that a compressed file of `size` bytes may unpack to."""
    return max(MOST_UNPACKED * size, NEVER_TOO_MUCH)


def read_objects(
    stream: IO[bytes], path: str, unreadable: Callable[[DataError], object], most: int | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The object in each line, with the line's number, from 1.

    Args:
        path: of the file, for messages.
        unreadable: gets what is wrong with a line that holds none; its number is passed over.
        most: bytes that the stream may hold; None where what it holds cannot be more than what is stored.

    Raises:
        DataError: the stream holds more than `most` bytes.
        OSError, EOFError: it cannot be read.
    """
    number, left = 0, most
    while line := stream.readline(MAX_RECORD_BYTES + 1):
        number, rest = number + 1, line
        while len(line) > MAX_RECORD_BYTES and rest and not rest.endswith(b"\n") and (left is None or left >= 0):
            left = None if left is None else left - len(rest)
            rest = stream.readline(_SKIPPED_AT_ONCE)
        left = None if left is None else left - len(rest)
        check_unpacked(left, path, most)
        if line.strip():
            try:
                yield number, _object(line, f"{path}:{number}")
            except DataError as error:
                unreadable(error)


def check_readable(unreadable: Sequence[DataError], records: int) -> None:
    """Refuse data of which more than MOST_UNREADABLE cannot be read.

    Raises:
        DataError: that of the first record.
    """
    if len(unreadable) <= MOST_UNREADABLE * records:
        return
    if len(unreadable) == 1:
        raise unreadable[0]
    others = f"{len(unreadable):,} of {records:,} records cannot be read; at most {MOST_UNREADABLE:.0%} may be so."
    raise DataError(f"{unreadable[0]} {others}")


def check_unpacked(left: int | None, path: str, most: int | None) -> None:
    """Refuse a file that has unpacked to more than `most` bytes: fewer than none are left.

    Raises:
        DataError: it has.
    """
    if left is not None and left < 0:
        found, allowed = f"more than {most:,} bytes once unpacked", f"at most {MOST_UNPACKED} times its size"
        remedy = "look at what it holds; if all of it is meant, unpack it"
        raise DataError(explain(path, found=found, allowed=allowed, remedy=remedy))


def _object(line: bytes, where: str) -> dict[str, Any]:
    if len(line) > MAX_RECORD_BYTES:
        raise _no_object(where, f"a line of more than {MAX_RECORD_BYTES:,} bytes")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _no_object(where, f"{line[:40].decode(errors='replace')!r}, which is no JSON ({error})") from error
    if not isinstance(record, dict):
        raise _no_object(where, f"a {type(record).__name__}")
    return record


def _no_object(where: str, found: str) -> DataError:
    return DataError(explain(where, found=found, allowed="a JSON object in each line", remedy=_REMEDY))
