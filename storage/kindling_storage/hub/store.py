"""A repository of the Hub as a store that is only read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, NoReturn

from kindling_api.errors import StorageError, explain
from kindling_api.hub import HubUri, parse_hub_uri
from kindling_storage.hub.repository import fetched, files_of, pinned
from kindling_storage.store import Data, ObjectInfo, ObjectStore, checked_path, not_found


@dataclass(frozen=True)
class HubStore(ObjectStore):
    """A repository, or a folder of it, at one commit."""

    place: HubUri

    @classmethod
    def from_uri(cls, uri: str) -> HubStore:
        """The store at a URI of the Hub; the Hub is asked when it is first read.

        Raises:
            SpecError: the URI has another form.
        """
        return cls(parse_hub_uri(uri, "storage uri"))

    @property
    def uri(self) -> str:
        return str(self.place)

    def child(self, path: str) -> HubStore:
        return HubStore(replace(self.place, path=self._whole(path.rstrip("/"))))

    def open(self, path: str) -> BinaryIO:
        return fetched(pinned(self.place), self._whole(path)).open("rb")

    def get_range(self, path: str, start: int, length: int) -> bytes:
        with self.open(path) as stream:
            stream.seek(start)
            return stream.read(length)

    def exists(self, path: str) -> bool:
        return self._whole(path) in files_of(pinned(self.place))

    def info(self, path: str) -> ObjectInfo:
        file = files_of(pinned(self.place)).get(self._whole(path))
        if file is None:
            raise not_found(self.uri, path)
        return ObjectInfo(path, file.size, file.sha256 or file.sha1)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = f"{self.place.path}/" if self.place.path else ""
        for path, file in sorted(files_of(pinned(self.place)).items()):
            if path.startswith(folder + prefix):
                yield ObjectInfo(path.removeprefix(folder), file.size, file.sha256 or file.sha1)

    def local_path(self, path: str) -> None:
        return None

    def put(self, path: str, data: Data) -> ObjectInfo:
        self._refuse()

    def put_if_absent(self, path: str, data: bytes) -> bool:
        self._refuse()

    def delete(self, path: str) -> None:
        self._refuse()

    def delete_prefix(self, folder: str) -> None:
        self._refuse()

    def _whole(self, path: str) -> str:
        return f"{self.place.path}/{checked_path(path)}" if self.place.path else checked_path(path)

    def _refuse(self) -> NoReturn:
        remedy = "keep products in a folder or in S3; `kindling push` puts a finished model on the Hub"
        raise StorageError(explain(self.uri, found="something to write", allowed="reading alone", remedy=remedy))
