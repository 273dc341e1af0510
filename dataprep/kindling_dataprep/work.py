"""What a build has done so far: parts in the product's `work/` folder, so that a killed build goes on where it was.

A part is some files and, put last, a record that lists them with their digests. A part whose record is missing or torn,
or does not match its files, does not count, and is made again. A part is never out of date: the folder is named by the
key of the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from kindling_api.base import Status, canonical_json
from kindling_api.errors import NotFoundError
from kindling_api.v1alpha1.products import FileEntry
from kindling_storage import ObjectStore
from kindling_storage.commit import file_entry, put_file

WORK = "work"
"""The folder, within the product's; it is deleted once the product is committed."""


class Part(Status):
    """The record of a part."""

    files: list[FileEntry]
    """What was written for it, relative to the product's folder."""
    facts: dict[str, Any]
    """What later stages need to know of it, small."""


@dataclass
class NewPart:
    """A part in the making: files are written into `folder`, and put one by one."""

    store: ObjectStore
    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    files: list[FileEntry] = field(default_factory=list)

    def put(self, path: str, data: bytes | Path) -> None:
        """Puts a file of the part."""
        self.files.append(put_file(self.store, path, data))


def find(store: ObjectStore, name: str) -> Part | None:
    """The finished part `name`; None where there is none, or where its files are not what its record says."""
    try:
        part = Part.model_validate_json(store.get(_record(name)))
        whole = all(file_entry(store, promised.path) == promised for promised in part.files)
    except (NotFoundError, ValidationError):
        return None
    return part if whole else None


@contextmanager
def new_part(store: ObjectStore) -> Iterator[NewPart]:
    """A part to be filled; its local folder is deleted at the end."""
    with TemporaryDirectory(prefix="kindling-") as folder:
        yield NewPart(store, Path(folder))


def finish(part: NewPart, name: str) -> Part:
    """Puts the record of `part`, which from now on counts."""
    record = Part(files=part.files, facts=part.facts)
    part.store.put(_record(name), canonical_json(record.document()))
    return record


def is_there(store: ObjectStore) -> bool:
    """Whether a build has left parts behind."""
    return any(True for _ in store.list(f"{WORK}/"))


def clear(store: ObjectStore) -> None:
    """Deletes all parts' work files."""
    store.delete_prefix(WORK)


def read_table(store: ObjectStore, path: str, columns: list[str] | None = None) -> pa.Table:
    """The named columns of a Parquet file."""
    with store.open(path) as stream:
        return pq.read_table(stream, columns=columns)


def _record(name: str) -> str:
    return f"{WORK}/{name}.json"
