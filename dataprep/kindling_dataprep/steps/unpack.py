"""Compressed files: the members that they are made of, unpacked in bounded memory, and the places that cannot be read.

A compressed file is members, one after another: those of gzip, Zstandard's frames, streams of bzip2 and xz. Damage
costs the rest of its member, and reading goes on at the next one. What is missing of a member that the file ends in
cannot be known, nor which part of one is wrong whose checksum is: such a member counts whole.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import zstandard

from kindling_api.errors import DataError, explain
from kindling_dataprep.steps.stored import READ, Chunk, Gap, Ignored, Stored

ZSTD_WINDOWS = {
    f"{size >> 20}Mi" if size < 1 << 30 else f"{size >> 30}Gi": size for size in (1 << bits for bits in range(27, 32))
}
"""Bytes, by how `spec.engine.zstdWindow` spells them."""

LONGEST_WINDOW = ZSTD_WINDOWS["128Mi"]
"""Unless the spec allows more: what `zstd` itself reads unasked."""

_PIECE = 1 << 14
"""Bytes that are unpacked at a time, and so the most before a damaged place that is lost with it."""
_PLAIN_PIECE = 1 << 18
_LARGEST_BLOCK = 128 << 10
"""The largest block of a Zstandard frame (RFC 8878, 3.1.1.2.4)."""
_BLOCK_HEADER, _CHECKSUM_BYTES = 3, 4
_RAW, _RLE, _COMPRESSED = range(3)
_ENDS_EARLY = "the file ends before this {} does"


def is_packed(path: str) -> bool:
    """Whether the file's suffix says that it is compressed."""
    return _codec_of(path) is not None


def chunks(stored: Stored, path: str, window: int) -> Iterator[Chunk | Gap | Ignored]:
    """The content of a file, unpacked as its suffix says, up to its end, whatever is wrong with it.

    Raises:
        DataError: a Zstandard frame has a window of more than `window` bytes.
    """
    codec = _codec_of(path)
    try:
        yield from _plain(stored) if codec is None else _members(stored, codec, path, window)
    except OSError as error:  # of the disk; none of the stores' own errors is one
        yield Gap(stored.position, stored.position, str(error))


def _plain(stored: Stored) -> Iterator[Chunk]:
    while True:
        start = stored.position
        if not (data := stored.take(_PLAIN_PIECE)):
            return
        yield Chunk(start, data)


class _BrokenError(Exception):
    """A member cannot be read further."""

    def __init__(self, why: str, *, counts_whole: bool = False) -> None:
        super().__init__(why)
        self.counts_whole = counts_whole


@dataclass(frozen=True)
class _Codec:
    """A kind of compression."""

    member: str
    """What its members are called."""
    magic: bytes
    begins: re.Pattern[bytes]
    """What a member begins with."""
    unpack: Callable[[Stored, int], Iterator[bytes]]
    """Of one member, with the largest window: the content; at an error, `Stored` stands at the bytes that caused it."""


def _members(stored: Stored, codec: _Codec, path: str, window: int) -> Iterator[Chunk | Gap | Ignored]:
    before_any = True
    while stored.peek(1):
        begin = at = stored.position
        if not codec.begins.match(stored.peek(_HEAD)):
            yield from _stray(stored, codec, window, before_any=before_any)
            before_any = False
            continue
        before_any = False
        try:
            for data in codec.unpack(stored, window):
                if data:
                    yield Chunk(at, data)
                at = stored.position
        except _BrokenError as error:
            start = begin if error.counts_whole else stored.position
            _go_to_next(stored, codec, window, after=begin)
            yield Gap(start, stored.position, str(error))
        except _WindowError as error:
            raise _too_long(path, begin, error.size, window) from error


_HEAD = 18
"""Bytes that show how a member begins; a Zstandard header has as many at most."""


def _stray(stored: Stored, codec: _Codec, window: int, *, before_any: bool) -> Iterator[Gap | Ignored]:
    """Passes over what is no member. Behind the last one, zeros and garbage hold nothing, as gzip(1) has it."""
    start = stored.position
    zeros = 0 if before_any else _pass_zeros(stored)
    if zeros and (not stored.peek(1) or codec.begins.match(stored.peek(_HEAD))):
        yield Ignored(start, stored.position, f"zeros after a {codec.member}")
        return
    head = stored.peek(len(codec.magic))
    alike = sum(found == expected for found, expected in zip(head, codec.magic, strict=False))
    _go_to_next(stored, codec, window, after=start)
    if stored.peek(1) or before_any or zeros or alike >= len(codec.magic) - 1:
        yield Gap(start, stored.position, f"no {codec.member} begins here")
    else:
        yield Ignored(start, stored.position, f"trailing garbage after a {codec.member}")


def _pass_zeros(stored: Stored) -> int:
    start = stored.position
    while data := stored.take(READ):
        if rest := data.lstrip(b"\0"):
            stored.back(len(rest))
            break
    return stored.position - start


def _go_to_next(stored: Stored, codec: _Codec, window: int, *, after: int) -> None:
    """To the next member that can be read, or to the end; at least one byte behind `after`."""
    stored.take(max(after + 1 - stored.position, 0))
    while data := stored.peek(READ):
        found = codec.begins.search(data)
        if found is None:
            stored.take(len(data) - _HEAD if len(data) == READ else len(data))
            continue
        stored.take(found.start())
        if _can_be_read(stored.peek(READ), codec, window):
            return
        stored.take(1)


def _can_be_read(data: bytes, codec: _Codec, window: int) -> bool:
    """Whether a member seems to begin there, and not only bytes that look so."""
    trial = Stored(io.BytesIO(data))
    try:
        for piece in codec.unpack(trial, window):
            if piece and trial.position > _HEAD:
                return True
    except _BrokenError as error:
        return error.counts_whole and trial.position == len(data)
    except _WindowError:
        return False
    return True


def _unpack_gzip(stored: Stored, window: int) -> Iterator[bytes]:
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    while not decoder.eof:
        data = stored.take(_PIECE)
        try:
            unpacked = decoder.decompress(data, _PIECE)
        except zlib.error as error:
            stored.back(len(data))
            why = str(error).partition(": ")[2] or str(error)
            wrong = "data check" in why or "length check" in why
            raise _BrokenError(f"a gzip member is damaged: {why}", counts_whole=wrong) from error
        stored.back(len(decoder.unused_data) if decoder.eof else len(decoder.unconsumed_tail))
        if not data and not unpacked and not decoder.eof:
            raise _BrokenError(_ENDS_EARLY.format("gzip member"), counts_whole=True)
        yield unpacked


def _unpack_with(stored: Stored, decoder: bz2.BZ2Decompressor | lzma.LZMADecompressor, member: str) -> Iterator[bytes]:
    while not decoder.eof:
        data = stored.take(_PIECE) if decoder.needs_input else b""
        try:
            unpacked = decoder.decompress(data, _PIECE)
        except (OSError, EOFError, lzma.LZMAError) as error:
            stored.back(len(data))
            why = str(error)
            wrong = "CRC" in why or "check" in why.lower()
            raise _BrokenError(f"a {member} is damaged: {why}", counts_whole=wrong) from error
        if decoder.eof:
            stored.back(len(decoder.unused_data))
        elif not data and not unpacked and decoder.needs_input:
            raise _BrokenError(_ENDS_EARLY.format(member), counts_whole=True)
        yield unpacked


def _unpack_bzip2(stored: Stored, window: int) -> Iterator[bytes]:
    return _unpack_with(stored, bz2.BZ2Decompressor(), "bzip2 stream")


def _unpack_xz(stored: Stored, window: int) -> Iterator[bytes]:
    return _unpack_with(stored, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY), "xz stream")


_XZ_MEMORY = 256 << 20
"""Bytes; `xz -9` asks for 65 MiB."""


class _WindowError(Exception):
    """A Zstandard frame needs a larger window than is allowed."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def _unpack_zstd(stored: Stored, window: int) -> Iterator[bytes]:
    """Block by block (RFC 8878, 3.1.1), none of which holds more than _LARGEST_BLOCK bytes."""
    if stored.peek(4)[1:] == _SKIPPABLE[1:]:
        size = int.from_bytes(_exactly(stored, 8)[4:], "little")
        while size:
            size -= len(_exactly(stored, min(size, READ)))
        return
    head = stored.peek(_HEAD)
    try:
        parameters, header = zstandard.get_frame_parameters(head), zstandard.frame_header_size(head)
    except zstandard.ZstdError as error:
        raise _damaged_frame(error, short=len(head) < _HEAD) from error
    if parameters.window_size > window:
        raise _WindowError(parameters.window_size)
    decoder = zstandard.ZstdDecompressor(max_window_size=max(window, 1024)).decompressobj()
    try:
        decoder.decompress(_exactly(stored, header))
    except zstandard.ZstdError as error:  # it names a dictionary
        raise _damaged_frame(error) from error
    is_last = False
    while not is_last:
        block, is_last = _block(stored, checked=parameters.has_checksum)
        try:
            unpacked = decoder.decompress(block)
        except zstandard.ZstdError as error:
            stored.back(len(block))
            raise _damaged_frame(error) from error
        yield unpacked


def _block(stored: Stored, *, checked: bool) -> tuple[bytes, bool]:
    """The next block with its header, and whether it is the last of its frame; with the checksum behind that one."""
    header = int.from_bytes(_exactly(stored, _BLOCK_HEADER), "little")
    stored.back(_BLOCK_HEADER)
    is_last, kind, size = bool(header & 1), (header >> 1) & 3, header >> 3
    if kind > _COMPRESSED or size > _LARGEST_BLOCK:
        raise _BrokenError("a Zstandard frame is damaged: no block begins here")
    checksum = _CHECKSUM_BYTES if checked and is_last else 0
    return _exactly(stored, _BLOCK_HEADER + (1 if kind == _RLE else size) + checksum), is_last


def _exactly(stored: Stored, count: int) -> bytes:
    if len(data := stored.take(count)) < count:
        raise _BrokenError(_ENDS_EARLY.format("Zstandard frame"), counts_whole=True)
    return data


def _damaged_frame(error: Exception, *, short: bool = False) -> _BrokenError:
    if short:
        return _BrokenError(_ENDS_EARLY.format("Zstandard frame"), counts_whole=True)
    why = str(error).rpartition(": ")[2]
    return _BrokenError(f"a Zstandard frame is damaged: {why}", counts_whole="checksum" in why)


def _too_long(path: str, begin: int, size: int, window: int) -> DataError:
    found = f"a window of {size:,} bytes in the Zstandard frame at byte {begin:,} of {path}"
    remedy = "set spec.engine.zstdWindow to as much, with memory for it in each worker, or pack the file without --long"
    return DataError(explain("spec.engine.zstdWindow", found=found, allowed=f"up to {window:,}", remedy=remedy))


_SKIPPABLE = b"\x50\x2a\x4d\x18"
_GZIP = _Codec("gzip member", b"\x1f\x8b\x08", re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"), _unpack_gzip)
_ZSTD = _Codec(
    "Zstandard frame",
    b"\x28\xb5\x2f\xfd",
    re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),
    _unpack_zstd,
)
_BZIP2 = _Codec(
    "bzip2 stream",
    b"BZh",
    re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)", re.DOTALL),
    _unpack_bzip2,
)
_XZ = _Codec("xz stream", b"\xfd7zXZ\x00", re.compile(rb"\xfd7zXZ\x00", re.DOTALL), _unpack_xz)
_CODECS = {".gz": _GZIP, ".zst": _ZSTD, ".bz2": _BZIP2, ".xz": _XZ}


def _codec_of(path: str) -> _Codec | None:
    return _CODECS.get(PurePosixPath(path.lower()).suffix)
