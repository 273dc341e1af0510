"""One JSON array of objects, read object by object: as large as the file may be, little of it is held at a time."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from typing import IO, Any

from kindling_api.errors import DataError, explain
from kindling_storage.jsonl import MAX_RECORD_BYTES, check_unpacked

_READ_AT_ONCE = 1 << 20
_SPACE = " \t\n\r"
_REMEDY = "correct the file, or write one object in each line of a .jsonl file"


def begins_array(stream: IO[bytes]) -> bool:
    """Whether what a stream holds is an array, and not an object in each line; its beginning is read."""
    return stream.read(4096).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def read_array(
    stream: IO[bytes], path: str, unreadable: Callable[[DataError], object], most: int | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of an array, with their numbers, from 1.

    Args:
        path: of the file, for messages.
        unreadable: gets what is wrong with an element that is no object; its number is passed over.
        most: bytes that the stream may hold; None where what it holds cannot be more than what is stored.

    Raises:
        DataError: it is no whole array, or holds more than `most` bytes.
        OSError, EOFError: it cannot be read.
    """
    text = _Text(stream, path, most)
    text.expect("[", f"{path}:1")
    number = 0
    while not text.ends_with("]"):
        number += 1
        where = f"{path}:{number}"
        if number > 1:
            text.expect(",", where)
        value = text.value(where)
        if isinstance(value, dict):
            yield number, value
        else:
            found = f"a {type(value).__name__}"
            unreadable(DataError(explain(where, found=found, allowed="an array of JSON objects", remedy=_REMEDY)))


class _Text:
    """The text of a stream, of which as much is held as the value that is looked at needs."""

    def __init__(self, stream: IO[bytes], path: str, most: int | None) -> None:
        self._stream, self._path, self._most, self._left = stream, path, most, most
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._whole = "", 0, False

    def ends_with(self, character: str) -> bool:
        """Whether this is what comes next."""
        return self._next() == character

    def expect(self, character: str, where: str) -> None:
        """Pass over a character, and the space before it."""
        if (found := self._next()) != character:
            raise _broken(where, f"{found!r} instead of {character!r}" if found else "the end of the file")
        self._at += 1

    def value(self, where: str) -> Any:
        """The value that comes next."""
        self._next()
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._at)
                if end < len(self._text) or self._whole:
                    self._at = end
                    return value
            except (ValueError, RecursionError) as error:
                if self._whole or isinstance(error, RecursionError):
                    raise _broken(where, f"no JSON ({error})") from error
            if len(self._text) - self._at > MAX_RECORD_BYTES:
                raise _broken(where, f"no end of a record within {MAX_RECORD_BYTES:,} characters")
            self._more(where)

    def _next(self) -> str:
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or self._whole:
                return self._text[self._at : self._at + 1]
            self._more(self._path)

    def _more(self, where: str) -> None:
        read = self._stream.read(max(_READ_AT_ONCE, len(self._text) - self._at))
        if self._left is not None:
            self._left -= len(read)
            check_unpacked(self._left, self._path, self._most)
        self._whole = not read
        try:
            self._text, self._at = self._text[self._at :] + self._decoder.decode(read, final=self._whole), 0
        except UnicodeDecodeError as error:
            raise _broken(where, f"text that is not UTF-8 ({error.reason})") from error


def _broken(where: str, found: str) -> DataError:
    return DataError(explain(where, found=found, allowed="an array of JSON objects", remedy=_REMEDY))
