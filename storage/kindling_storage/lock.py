"""The exclusive right to write at a place, which frees itself when its holder dies.

In a folder it is the kernel's lock on a file, gone with the process however it ends. In S3 it is a lease that its
holder keeps renewing (`kindling_storage.s3.lease`). Either way the object says who has the lock, with a token that
nobody else has; before a commit, any process of the holder's can ask whether the place is still theirs (`confirm`).

A newer attempt at the same run takes the place from an older one at once, alive or not.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from kindling_api.errors import ConflictError, NotFoundError, explain
from kindling_api.v1alpha1.runfile import RunFile
from kindling_storage.atomic import local_errors, make_folder
from kindling_storage.holder import Holder, conflict, holder, read_holder, supersedes
from kindling_storage.store import ObjectStore

LOCK = "lock"
"""The object that stands for a product's folder, in it."""


class Lock(Protocol):
    """A lock that this process has."""

    @property
    def token(self) -> str:
        """What `confirm` wants to know."""

    def check(self) -> None:
        """Whether it is known to be lost; this asks nobody, and costs nothing.

        Raises:
            ConflictError: it is: another process may be writing here.
        """


@contextmanager
def lock(store: ObjectStore, path: str, run: RunFile | None = None) -> Iterator[Lock]:
    """Hold the right to write at a place, for which the object `path` stands, while the block runs.

    In S3 this waits, 30 seconds at most, where a holder was seen a moment ago and may be dead; not for an older attempt
    at the same `run`.

    Raises:
        ConflictError: another process, alive, has it; the message says which, where, and since when.
        StorageError: the place cannot be reached or written.
    """
    me = holder(run)
    local = store.local_path(path)
    if local is not None:
        with _file_lock(local, me) as held:
            yield held
    else:
        from kindling_storage.s3.lease import lease  # not above: boto3 takes a third of a second to load
        from kindling_storage.s3.store import S3Store

        assert isinstance(store, S3Store)
        with lease(store, path, me) as leased:
            yield leased


def confirm(store: ObjectStore, path: str, token: str) -> None:
    """Make sure, before a write that must not be a latecomer's, that the holder with this token still has the place.

    Raises:
        ConflictError: another has it now, or nobody.
        StorageError: the store cannot be asked.
    """
    try:
        found = store.get(path)
    except NotFoundError:
        found = b""
    document = read_holder(found)
    if document.get("token") != token or document.get("free") is True:
        raise conflict(f"{store.uri}/{path}", found)


def held_by(store: ObjectStore, path: str) -> Holder | None:
    """Who works at a place now, without waiting or taking anything; None where nobody does.

    Raises:
        StorageError: the place cannot be asked.
    """
    local = store.local_path(path)
    if local is None:
        from kindling_storage.s3.lease import holder_of  # not above: as before
        from kindling_storage.s3.store import S3Store

        assert isinstance(store, S3Store)
        return holder_of(store, path)
    with local_errors(local), suppress(FileNotFoundError, NotADirectoryError), local.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return read_holder(file.read())
    return None


class FileLock:
    """A lock on a file of this machine."""

    def __init__(self, path: Path, file: BinaryIO, token: str) -> None:
        self._path = path
        self._file = file
        self.token = token

    def check(self) -> None:
        """See `Lock.check`: the lock file was removed or replaced by somebody."""
        if not _is_at(self._file, self._path):
            allowed, remedy = "the lock file that this process made", "let one run at a time work here, and run again"
            raise ConflictError(explain(str(self._path), found="removed", allowed=allowed, remedy=remedy))


@contextmanager
def _file_lock(path: Path, me: Holder) -> Iterator[FileLock]:
    with local_errors(path):
        file = _locked(path, me)
    with file:  # closing it frees the lock
        try:
            yield FileLock(path, file, me["token"])
        finally:
            if _is_at(file, path):
                path.unlink()


def _locked(path: Path, me: Holder) -> BinaryIO:
    """The open file at `path`, locked for this process and saying so."""
    make_folder(path.parent)
    while True:
        file = open(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666), "r+b", buffering=0)  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                found = file.read()
                if not supersedes(me, read_holder(found)):
                    raise conflict(path.parent.as_uri(), found) from None
                if _is_at(file, path):
                    path.unlink(missing_ok=True)  # its holder notices, and ends
            continue
        if _is_at(file, path):
            file.truncate(0)
            file.write(json.dumps(me).encode())
            return file
        file.close()  # its last holder removed it between our opening and our locking it


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether `path` still leads to this very file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
