"""The exclusive right to write at a place, which frees itself when its holder dies.

In a folder it is the kernel's lock on a file, gone with the process however it ends. In S3 it is a lease that its
holder keeps renewing (`kindling_storage.s3.lease`).
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from kindling_api.errors import ConflictError, explain
from kindling_storage.atomic import local_errors, make_folder
from kindling_storage.store import ObjectStore


class Hold(Protocol):
    """A right that is held."""

    def check(self) -> None:
        """Before a write that must not be a latecomer's.

        Raises:
            ConflictError: the right was lost: another process may be writing here.
        """


@contextmanager
def hold(store: ObjectStore, path: str) -> Iterator[Hold]:
    """Hold the right to write at a place, for which the object `path` stands, while the block runs.

    In S3 this waits, 30 seconds at most, where a holder was seen a moment ago and may be dead.

    Raises:
        ConflictError: another process, alive, holds it; the message says which, where, and since when.
        StorageError: the place cannot be reached or written.
    """
    local = store.local_path(path)
    if local is not None:
        with _file_hold(local) as held:
            yield held
    else:
        from kindling_storage.s3.lease import lease  # not above: boto3 takes a third of a second to load
        from kindling_storage.s3.store import S3Store

        assert isinstance(store, S3Store)
        with lease(store, path) as leased:
            yield leased


def holder() -> dict[str, Any]:
    """This process, as it is named to others that want the same place."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds")}


def conflict(place: str, found: bytes) -> ConflictError:
    """The error for a place whose holder wrote `found` of itself."""
    try:
        other = json.loads(found)
        who = f"process {other['pid']} on {other['host']}, since {other['since']}"
    except (ValueError, KeyError, TypeError):
        who = "a process that has not said which it is"
    return ConflictError(
        explain(
            place,
            found=f"held by {who}",
            allowed="one writer at a time",
            remedy="wait until that run has ended, or stop it; what it finished is kept",
        )
    )


class FileHold:
    """A lock on a file of this machine."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file

    def check(self) -> None:
        """See `Hold.check`: the lock file was removed or replaced by somebody."""
        if not _is_at(self._file, self._path):
            allowed, remedy = "the lock file that this process made", "let one run at a time work here, and run again"
            raise ConflictError(explain(str(self._path), found="removed", allowed=allowed, remedy=remedy))


@contextmanager
def _file_hold(path: Path) -> Iterator[FileHold]:
    with local_errors(path):
        file = _locked(path)
    with file:  # closing it frees the lock
        try:
            yield FileHold(path, file)
        finally:
            if _is_at(file, path):
                path.unlink()


def _locked(path: Path) -> BinaryIO:
    """The open file at `path`, locked for this process and saying so."""
    make_folder(path.parent)
    while True:
        file = open(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666), "r+b", buffering=0)  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                raise conflict(path.parent.as_uri(), file.read()) from None
        if _is_at(file, path):
            file.truncate(0)
            file.write(json.dumps(holder()).encode())
            return file
        file.close()  # its last holder removed it between our opening and our locking it


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether `path` still leads to this very file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
