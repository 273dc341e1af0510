"""A store in a folder of this machine, or on a disk that machines share."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

from kindling_api.errors import SpecError, explain
from kindling_storage.atomic import TEMPORARY_PREFIX, link_atomically, local_errors, sweep, write_atomically
from kindling_storage.store import Data, ObjectInfo, ObjectStore, as_stream, checked_path, not_found


@dataclass(frozen=True)
class FileStore(ObjectStore):
    """A folder; it is made by the first `put`."""

    root: Path
    _swept: set[Path] = field(default_factory=set, repr=False, compare=False)
    """Folders already cleared of what killed writers left; shared with all children."""

    @classmethod
    def from_uri(cls, uri: str) -> FileStore:
        """The folder of a `file:///absolute/folder` URI.

        Raises:
            SpecError: the URI names a host, or a relative folder.
        """
        path = uri.removeprefix("file://")
        if not path.startswith("/") or "\0" in unquote(path):
            allowed = "file:// followed by an absolute path, three slashes in all, as in file:///data/store"
            raise SpecError(explain("storage uri", found=repr(uri), allowed=allowed, remedy="write the absolute path"))
        return cls(Path(os.path.normpath(unquote(path).replace("//", "/"))))

    @property
    def uri(self) -> str:
        return "file://" + quote(os.fsencode(self.root))

    def child(self, path: str) -> FileStore:
        return FileStore(self.root / checked_path(path.rstrip("/")), self._swept)

    def local_path(self, path: str) -> Path:
        return self.root / checked_path(path)

    def open(self, path: str) -> BinaryIO:
        local = self.local_path(path)
        with local_errors(local):
            try:
                return local.open("rb")
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise not_found(self.uri, path) from None

    def get_range(self, path: str, start: int, length: int) -> bytes:
        with self.open(path) as file:
            file.seek(start)
            return file.read(length)

    def exists(self, path: str) -> bool:
        local = self.local_path(path)
        with local_errors(local):
            return local.is_file()

    def info(self, path: str) -> ObjectInfo:
        local = self.local_path(path)
        with local_errors(local):
            try:
                status = local.stat()
            except (FileNotFoundError, NotADirectoryError):
                raise not_found(self.uri, path) from None
        if not stat.S_ISREG(status.st_mode):
            raise not_found(self.uri, path)
        return ObjectInfo(path, status.st_size, _etag(status))

    def put(self, path: str, data: Data) -> ObjectInfo:
        local = self._cleared(path)
        with as_stream(data) as stream:
            written = write_atomically(local, stream)
        with local_errors(local):
            return ObjectInfo(path, written.size, _etag(local.stat()), written.digest)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        return link_atomically(self._cleared(path), data)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder, _, _ = prefix.rpartition("/")
        start = self.local_path(folder) if folder else self.root
        paths = (os.path.relpath(local, self.root) for local in _files_under(start))
        for path in sorted((path for path in paths if path.startswith(prefix)), key=os.fsencode):
            with suppress(FileNotFoundError):  # deleted since, or a link that leads nowhere
                status = (self.root / path).stat()
                if stat.S_ISREG(status.st_mode):
                    yield ObjectInfo(path, status.st_size, _etag(status), modified=status.st_mtime)

    def delete(self, path: str) -> None:
        local = self.local_path(path)
        with local_errors(local), suppress(FileNotFoundError, NotADirectoryError):
            local.unlink()

    def delete_prefix(self, folder: str) -> None:
        local = self.local_path(folder.rstrip("/")) if folder else self.root
        with local_errors(local), suppress(FileNotFoundError, NotADirectoryError):
            shutil.rmtree(local)

    def _cleared(self, path: str) -> Path:
        """The local path to write to; its folder is swept when this store first writes there."""
        local = self.local_path(path)
        if local.parent not in self._swept:
            sweep(local.parent)
            self._swept.add(local.parent)
        return local


def _files_under(start: Path) -> Iterator[str]:
    """Paths of all files under a folder, in no order, without those that are being written.

    A link to a folder is followed unless that folder was listed already: no link leads round in a circle, and none to a
    folder beside it gives its files twice.
    """
    with local_errors(start):
        listed: set[tuple[int, int]] = set()
        folders, links = [os.fspath(start)], list[str]()
        while folders or links:
            folder = folders.pop() if folders else links.pop(0)
            try:
                status = os.stat(folder)
                entries = [] if (status.st_dev, status.st_ino) in listed else list(os.scandir(folder))
            except (FileNotFoundError, NotADirectoryError):  # deleted since
                continue
            listed.add((status.st_dev, status.st_ino))
            for entry in sorted(entries, key=lambda entry: os.fsencode(entry.name)):
                try:
                    is_folder = entry.is_dir()
                except OSError:  # a link to itself
                    continue
                if is_folder:
                    (links if entry.is_symlink() else folders).append(entry.path)
                elif not entry.name.startswith(TEMPORARY_PREFIX):
                    yield entry.path


def _etag(status: os.stat_result) -> str:
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
