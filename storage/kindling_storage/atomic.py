"""Local files that appear only when whole.

The content goes to a temporary file in the same folder, is flushed to the disk, and is then renamed over the target
or, where nothing may be replaced, linked to it. The writer holds a lock on its temporary file, so that what a killed
process left behind can be told from what a living one is writing, and swept.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kindling_api.errors import StorageError, explain

TEMPORARY_PREFIX = ".kindling-tmp-"
CHUNK_BYTES = 1 << 20
SWEEP_SECONDS = 10.0
"""Younger temporary files are left alone: their writer may be between creating and locking them."""


@dataclass(frozen=True)
class Written:
    """What was written: size in bytes, and `sha256:…` of the content."""

    size: int
    digest: str


def write_atomically(target: Path, source: BinaryIO | bytes) -> Written:
    """Write all of `source` to `target`, replacing it in one step. Folders above it are made.

    Raises:
        StorageError: the disk is full, or the folder cannot be written; nothing is left behind.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    with local_errors(target, needed=remaining(stream)), _temporary(target) as temporary:
        written = _copy(stream, temporary)
        os.replace(temporary, target)
        _flush_folder(target.parent)
    return written


def link_atomically(target: Path, data: bytes) -> bool:
    """Write `data` to `target` unless it exists; False if it does. Of several callers at once exactly one wins.

    Raises:
        StorageError: as `write_atomically`, or the file system knows no hard links.
    """
    with local_errors(target, needed=len(data)), _temporary(target) as temporary:
        _copy(io.BytesIO(data), temporary)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        _flush_folder(target.parent)
    return True


def remaining(source: BinaryIO) -> int | None:
    """Bytes from the stream's position to its end; None where that cannot be known."""
    if not source.seekable():
        return None
    position = source.tell()
    size = source.seek(0, os.SEEK_END)
    source.seek(position)
    return size - position


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed writers left in `folder`; those of living writers are locked and stay."""
    with suppress(OSError):
        for temporary in folder.glob(f"{TEMPORARY_PREFIX}*"):
            _remove_if_orphaned(temporary)


@contextmanager
def local_errors(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turn the operating system's refusals about `path` into StorageErrors that say what to do.

    `needed` is how many bytes were to be written, where that is known.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(_sentence(error, path, needed)) from error


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """The path of a new, locked, empty file beside `target`; removed afterwards if it is still there."""
    make_folder(target.parent)
    temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        with suppress(OSError):  # a file system without locks: what a killed writer leaves there stays
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def _copy(stream: BinaryIO, temporary: Path) -> Written:
    """Copy `stream` into the file and down to the disk, counting and hashing on the way."""
    digest, size = hashlib.sha256(), 0
    with temporary.open("wb", buffering=0) as file:
        while chunk := stream.read(CHUNK_BYTES):
            view = memoryview(chunk)
            while view:  # an unbuffered write may take only a part, as on a disk that is nearly full
                view = view[file.write(view) :]
            digest.update(chunk)
            size += len(chunk)
        os.fsync(file.fileno())
    return Written(size, f"sha256:{digest.hexdigest()}")


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it, so that they outlast a power failure."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
        _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    """Make the folder's newest names outlast a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_if_orphaned(temporary: Path) -> None:
    with suppress(OSError), temporary.open("rb") as file:
        if time.time() - os.fstat(file.fileno()).st_mtime > SWEEP_SECONDS:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while the writer lives
            temporary.unlink(missing_ok=True)


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def _sentence(error: OSError, path: Path, needed: int | None) -> str:
    folder, reason = path.parent, os.strerror(error.errno or 0).lower()
    if error.errno in _FULL:
        return explain(
            str(folder),
            found=f"{reason} while writing {path.name} ({_free(folder)} bytes free)",
            allowed="room for the whole file" if needed is None else f"room for {needed} bytes",
            remedy="free some space, or a quota, or use a folder on another disk, then run the same command again; "
            "finished work is kept",
        )
    if error.errno in _FORBIDDEN:
        return explain(
            str(folder),
            found=f"{reason} for {path.name}",
            allowed=f"a folder that user {os.geteuid()} may read and write, on a file system with hard links",
            remedy="change its permissions or its mount, or use another folder",
        )
    return explain(
        str(path),
        found=reason,
        allowed="a regular file in an ordinary folder",
        remedy="see what lies at this path, and move it away or use another folder",
    )


def _free(folder: Path) -> int:
    """Bytes free where `folder` is, or is to be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
