"""What a build has done so far: parts in the product's `work/` folder, so that a killed build goes on where it was.

A part is some files and, put last, a record that lists them with their digests. A part whose record is missing or torn,
or does not match its files, does not count, and is made again. A part is never out of date: the folder is named by the
key of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from kindling_api.base import Status, canonical_json
from kindling_api.errors import NotFoundError
from kindling_api.v1alpha1.products import FileEntry
from kindling_storage import ObjectStore
from kindling_storage.commit import file_entry, put_file

Rows = NDArray[np.int64]
"""Rows of a table, by their numbers."""

WORK = "work"
"""The folder, within the product's; it is deleted once the product is committed."""


Facts = TypeVar("Facts", bound=Status, covariant=True)
"""What later stages need to know of a part (see `facts`)."""


@dataclass(frozen=True)
class Part(Generic[Facts]):
    """A finished part."""

    files: list[FileEntry]
    """What was written for it, relative to the product's folder."""
    facts: Facts

    @property
    def size(self) -> int:
        """Of its files together, in bytes."""
        return sum(file.size for file in self.files)


class PartRecord(Status):
    """A part as it is written down."""

    files: list[FileEntry]
    facts: dict[str, Any]


@dataclass
class NewPart:
    """A part in the making: files are written into `folder`, and put one by one."""

    store: ObjectStore
    folder: Path
    files: list[FileEntry] = field(default_factory=list)

    def put(self, path: str, data: bytes | Path) -> None:
        """Puts a file of the part."""
        self.files.append(put_file(self.store, path, data))


def once(store: ObjectStore, name: str, kind: type[Facts], fill: Callable[[NewPart], Facts]) -> Part[Facts]:
    """The part `name`, made by `fill` unless it was finished before; `fill` returns its facts, which are of `kind`."""
    if (done := find(store, name, kind)) is not None:
        return done
    with new_part(store) as part:
        made = Part(facts=fill(part), files=part.files)
    record = PartRecord(files=made.files, facts=made.facts.document())
    store.put(_record_path(name), canonical_json(record.document()))
    return made


def find(store: ObjectStore, name: str, kind: type[Facts]) -> Part[Facts] | None:
    """The finished part `name`; None where there is none, or where its files are not what its record says."""
    try:
        record = PartRecord.model_validate_json(store.get(_record_path(name)))
        part = Part(record.files, kind.model_validate(record.facts))
        whole = all(file_entry(store, promised.path) == promised for promised in part.files)
    except (NotFoundError, ValidationError):
        return None
    return part if whole else None


@contextmanager
def new_part(store: ObjectStore) -> Iterator[NewPart]:
    """A part to be filled; its local folder is deleted at the end."""
    with TemporaryDirectory(prefix="kindling-") as folder:
        yield NewPart(store, Path(folder))


def is_there(store: ObjectStore) -> bool:
    """Whether a build has left parts behind."""
    return any(True for _ in store.list(f"{WORK}/"))


def clear(store: ObjectStore) -> None:
    """Deletes all parts' work files."""
    store.delete_prefix(WORK)


def read_table(store: ObjectStore, path: str, columns: list[str] | None = None) -> pa.Table:
    """The named columns of a Parquet file."""
    with store.open(path) as stream:
        return _parquet(stream).read(columns=columns, use_threads=False)


def row_groups(
    store: ObjectStore, path: str, columns: list[str], rows: Rows | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """The named columns of a Parquet file, one row group at a time, each with the number of its first row.

    Of a file of which only some `rows` are wanted, the row groups without any of them are not read.
    """
    first = 0
    with store.open(path) as stream:
        file = _parquet(stream)
        for group in range(file.num_row_groups):
            after = first + file.metadata.row_group(group).num_rows
            if rows is None or ((rows >= first) & (rows < after)).any():
                yield first, file.read_row_group(group, columns=columns, use_threads=False)
            first = after


def remaining(store: ObjectStore, path: str, columns: list[str], removed: Rows) -> Iterator[pa.Table]:
    """The same without the rows `removed`, which are sorted."""
    for first, batch in row_groups(store, path, columns):
        yield batch.take(np.setdiff1d(np.arange(first, first + len(batch)), removed) - first)


def _parquet(stream: IO[bytes]) -> pq.ParquetFile:
    """To be read without threads: one of Arrow's would hold the stream for a moment longer than the reading takes, and
    abort a process that ends just then."""
    return pq.ParquetFile(stream, pre_buffer=False)


def _record_path(name: str) -> str:
    return f"{WORK}/{name}.json"
