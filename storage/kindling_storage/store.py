"""The contract that every store keeps, so that nothing above it asks whether a product lies in a folder or in S3.

Three promises carry the rest of Kindling: an object is visible only when it is whole, `put_if_absent` has exactly one
winner, and whatever the store refuses comes back as a StorageError that says what to change.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from kindling_api.errors import NotFoundError, StorageError, explain
from kindling_storage.atomic import Written, local_errors, write_atomically

Data = bytes | Path | BinaryIO
"""What can be put: bytes, a local file, or a stream that is read to its end."""


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a store."""

    path: str
    """Relative to the store, with forward slashes."""
    size: int
    """In bytes."""
    etag: str
    """Changes whenever the content does; means nothing else."""
    digest: str | None = None
    """`sha256:…` of the content; known only of what this very call has put."""
    modified: float | None = field(default=None, compare=False)
    """When it was written, in seconds since 1970 by the clock of where it lies; known of what is listed."""


class ObjectStore(ABC):
    """A folder or an S3 prefix, holding objects under relative paths with forward slashes.

    Safe to use from several threads. Can be pickled and opened again in another process. A server that stops answering
    is waited for, for minutes; `kindling_storage.outage` tells of that.

    Every method raises StorageError where the store cannot be reached (UnreachableError), refuses, or is full, and
    where a path is not a plain relative one; methods that read one object raise NotFoundError (a StorageError) where it
    does not exist.
    """

    @property
    @abstractmethod
    def uri(self) -> str:
        """Where this store begins, as in `file:///folder` or `s3://bucket/prefix`, without a slash at the end."""

    @abstractmethod
    def child(self, path: str) -> ObjectStore:
        """The part of this store under `path`; nothing is created."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """A readable, seekable stream; over S3 it resumes by itself where a connection breaks."""

    @abstractmethod
    def get_range(self, path: str, start: int, length: int) -> bytes:
        """Up to `length` bytes from byte `start` on; fewer, or none, past the end."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is an object at `path`; a folder is not one."""

    @abstractmethod
    def info(self, path: str) -> ObjectInfo:
        """What `list` says of one object."""

    @abstractmethod
    def put(self, path: str, data: Data) -> ObjectInfo:
        """Write an object, replacing what was there. Readers see the old content or all of the new, never a part."""

    @abstractmethod
    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write an object unless there is one: of any number of callers at once, exactly one is told True.

        Where a connection breaks just after the server took the object, the retry can be told False of its own
        success; callers to whom that matters write something unique and read it back.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose path begins with `prefix`, sorted by path; end it with a slash to mean a folder."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove one object; it is no error if there is none."""

    @abstractmethod
    def delete_prefix(self, folder: str) -> None:
        """Remove everything under a folder, or all of the store for "": `step-1` never takes `step-10` along."""

    @abstractmethod
    def local_path(self, path: str) -> Path | None:
        """Where the object is, or would be, on this machine's file system; None for stores elsewhere."""

    def get(self, path: str) -> bytes:
        """The whole content of an object."""
        with self.open(path) as stream:
            return stream.read()

    def download(self, path: str, local: Path) -> Written:
        """Copy an object to a local file, which appears only when whole. Folders above it are made."""
        with self.open(path) as stream:
            return write_atomically(local, stream)


def checked_path(path: str) -> str:
    """`path`, if it is a plain relative path; a manifest read from elsewhere must not lead out of its folder.

    Raises:
        StorageError: the path is empty or absolute, or has an empty, `.` or `..` part or a NUL.
    """
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        allowed = "a relative path without empty, '.' or '..' parts"
        raise StorageError(explain("object path", found=repr(path), allowed=allowed, remedy="correct the path"))
    return path


@contextmanager
def as_stream(data: Data) -> Iterator[BinaryIO]:
    """What is to be put, as a stream; a local file is opened and closed here."""
    if isinstance(data, bytes):
        yield io.BytesIO(data)
    elif isinstance(data, Path):
        with local_errors(data):
            file = data.open("rb")
        with file:
            yield file
    else:
        yield data


def not_found(uri: str, path: str) -> NotFoundError:
    """The error for an object that does not exist."""
    allowed, remedy = "an object that was put", "check the path, or run what makes it"
    return NotFoundError(explain(f"{uri}/{path}", found="nothing", allowed=allowed, remedy=remedy))
