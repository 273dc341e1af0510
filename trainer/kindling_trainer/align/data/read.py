"""Reads the records of an alignment run's data: JSONL, JSON or Parquet, one file, a folder, or a glob, in any store."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, BinaryIO, NamedTuple, cast

from kindling_api.errors import DataError, explain, finding
from kindling_api.v1alpha1.alignment_run import AlignmentData, DialogueFormat
from kindling_api.v1alpha1.products import FileEntry
from kindling_storage import ObjectStore
from kindling_storage.commit import file_entry
from kindling_storage.globs import OpenStore, find, remedy_for_nothing
from kindling_storage.json_array import begins_array, read_array
from kindling_storage.jsonl import most_unpacked, read_objects
from kindling_trainer.align.data.builtin import PYTHON_DOCSTRINGS, python_docstrings
from kindling_trainer.align.data.forms import Fields, check_form, detect

_SUFFIXES = (".jsonl", ".ndjson", ".parquet", ".json")
_COMPRESSIONS = (".gz", ".zst")
_ALLOWED = "files that end in .jsonl, .json or .parquet; JSON may be compressed as .gz or .zst"


Unreadable = Callable[[DataError], object]
ReadObjects = Callable[[IO[bytes], str, Unreadable, int | None], Iterator[tuple[int, dict[str, Any]]]]


class Record(NamedTuple):
    """One record, its form, and where it stands, as in `train.jsonl:12`."""

    place: str
    fields: Fields
    form: DialogueFormat


@dataclass(frozen=True)
class DataSource:
    """One entry of `spec.data`, opened."""

    where: str
    """The entry's field."""
    store: ObjectStore
    files: list[FileEntry]
    given: DialogueFormat | None
    """The form that the entry says its records have."""

    def records(self, unreadable: Unreadable) -> Iterator[Record]:
        """All records in the order of the files.

        Args:
            unreadable: gets what is wrong with a line that holds no record; it is passed over.

        Raises:
            DataError: a file cannot be read to its end, or a record is of another form than the first one.
        """
        form = self.given
        for file in self.files:
            for number, fields in _read(self.store, file, unreadable):
                place = f"{file.path}:{number}"
                with naming_record(place):
                    form = form or detect(fields)
                    check_form(fields, form)
                yield Record(place, fields, form)


def open_sources(data: Sequence[AlignmentData], open_store: OpenStore, *, where: str = "spec.data") -> list[DataSource]:
    """The files that the field `where` names, each with its digest.

    Raises:
        DataError: an entry names nothing that can be read.
        SpecError: a scheme that no store has.
    """
    return [_open(f"{where}[{number}]", entry, open_store) for number, entry in enumerate(data)]


@contextmanager
def naming_record(place: str) -> Iterator[None]:
    """A DataError of the block says that it happened at `place`."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _open(where: str, entry: AlignmentData, open_store: OpenStore) -> DataSource:
    if entry.uri == PYTHON_DOCSTRINGS:
        made = python_docstrings()
        store = open_store(made.parent.as_uri())
        return DataSource(where, store, [file_entry(store, made.name)], entry.format)
    allowed = f"s3://, file://, hf://datasets/, a path, or {PYTHON_DOCSTRINGS}"
    found = find(entry.uri, where=f"{where}.uri", allowed=allowed, open_store=open_store)
    paths = sorted(path for path in found.paths if _suffix(path) in _SUFFIXES)
    if found.is_folder:  # beside data of another kind, .json is what describes it
        paths = [path for path in paths if _suffix(path) != ".json"] or paths
    left_out = sorted(set(found.paths) - set(paths))
    if not paths or (left_out and not found.is_folder):
        what = f"{left_out[0]!r}" if left_out else f"nothing at {entry.uri!r}"
        remedy = remedy_for_nothing(entry.uri)
        raise DataError(explain(f"{where}.uri", found=what, allowed=_ALLOWED, remedy=remedy))
    store = open_store(found.uri)
    return DataSource(where, store, [file_entry(store, path) for path in paths], entry.format)


def _suffix(path: str) -> str:
    """`a/b.jsonl.gz` → `.jsonl`; Parquet compresses its columns itself."""
    name = PurePosixPath(path.lower())
    return name.with_suffix("").suffix if name.suffix in _COMPRESSIONS else name.suffix


def _read(store: ObjectStore, file: FileEntry, unreadable: Unreadable) -> Iterator[tuple[int, Fields]]:
    """Each record with the number of its line or row, from 1."""
    suffix = _suffix(file.path)
    is_array = suffix == ".json" and _is_array(store, file)
    with store.open(file.path) as stream:
        if suffix == ".parquet":
            yield from _parquet(stream, file.path)
        else:
            yield from _json(stream, file, unreadable, read_array if is_array else read_objects)


def _is_array(store: ObjectStore, file: FileEntry) -> bool:
    """Some files of JSON hold an array, and others an object in each line."""
    with store.open(file.path) as stream:
        try:
            return begins_array(_unpacked(stream, file.path))
        except (OSError, EOFError):
            return False  # what is damaged is told by who reads it


def _json(stream: BinaryIO, file: FileEntry, unreadable: Unreadable, read: ReadObjects) -> Iterator[tuple[int, Fields]]:
    number = 0
    unpacked = _unpacked(stream, file.path)
    try:
        for number, fields in read(unpacked, file.path, unreadable, most_unpacked(file.size)):
            yield number, fields
    except (OSError, EOFError) as error:
        raise _damaged(f"{file.path}:{number + 1}", error) from error


def _unpacked(stream: BinaryIO, path: str) -> IO[bytes]:
    match PurePosixPath(path.lower()).suffix:
        case ".gz":
            return cast(IO[bytes], gzip.open(stream))
        case ".zst":
            import pyarrow as pa  # not above: few data are so compressed, and it takes long to load

            unpacked = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")
            return io.BufferedReader(cast(io.RawIOBase, unpacked))
        case _:
            return stream


def _parquet(stream: BinaryIO, path: str) -> Iterator[tuple[int, Fields]]:
    import pyarrow as pa  # not above: as before
    import pyarrow.parquet as pq

    number = 0
    try:
        # Without threads: one of Arrow's would hold the stream longer, and abort a process that ends just then.
        file = pq.ParquetFile(pa.PythonFile(stream, mode="r"), pre_buffer=False)
        for batch in file.iter_batches(batch_size=256, use_threads=False):
            for row in batch.to_pylist():
                # What a file of mixed records lacks in one row, its column has as null.
                number += 1
                yield number, {field: value for field, value in row.items() if value is not None}
    except (OSError, pa.ArrowException) as error:
        raise _damaged(f"{path}:{number + 1}", error) from error


def _damaged(place: str, error: Exception) -> DataError:
    return DataError(f"{place}: {finding(found=error, allowed='a file that is whole', remedy='fetch the file again')}")
