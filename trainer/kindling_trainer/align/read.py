"""Reads the records of an alignment run's data: JSONL or Parquet, one file, a folder, or a glob, in any store."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, BinaryIO, NamedTuple, cast

from kindling_api.errors import DataError, explain, finding
from kindling_api.v1alpha1.alignment_run import AlignmentData, DialogueFormat
from kindling_api.v1alpha1.products import FileEntry
from kindling_storage import ObjectStore
from kindling_storage.commit import file_entry
from kindling_storage.globs import OpenStore, find
from kindling_trainer.align.builtin import PYTHON_DOCSTRINGS, python_docstrings
from kindling_trainer.align.formats import Fields, check_form, detect

_SUFFIXES = (".jsonl", ".ndjson", ".parquet")
_COMPRESSIONS = (".gz", ".zst")
_ALLOWED = "files that end in .jsonl or .parquet; JSONL may be compressed as .gz or .zst"


class Record(NamedTuple):
    """One record, its form, and where it stands, as in `train.jsonl:12`."""

    place: str
    fields: Fields
    form: DialogueFormat


@dataclass(frozen=True)
class Source:
    """One entry of `spec.data`, opened."""

    where: str
    """The entry's field."""
    store: ObjectStore
    files: list[FileEntry]
    given: DialogueFormat | None
    """The form that the entry says its records have."""

    def records(self) -> Iterator[Record]:
        """All records in the order of the files.

        Raises:
            DataError: a record cannot be read, or is of another form than the first one.
        """
        form = self.given
        for file in self.files:
            for number, fields in _read(self.store, file.path):
                place = f"{file.path}:{number}"
                with told_where(place):
                    form = form or detect(fields)
                    check_form(fields, form)
                yield Record(place, fields, form)


def open_sources(data: Sequence[AlignmentData], open_store: OpenStore, *, where: str = "spec.data") -> list[Source]:
    """The files that the field `where` names, each with its digest.

    Raises:
        DataError: an entry names nothing that can be read.
        SpecError: a scheme that no store has.
    """
    return [_open(f"{where}[{number}]", entry, open_store) for number, entry in enumerate(data)]


@contextmanager
def told_where(place: str) -> Iterator[None]:
    """A DataError of the block says that it happened at `place`."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _open(where: str, entry: AlignmentData, open_store: OpenStore) -> Source:
    if entry.uri == PYTHON_DOCSTRINGS:
        made = python_docstrings()
        store = open_store(made.parent.as_uri())
        return Source(where, store, [file_entry(store, made.name)], entry.format)
    allowed = f"s3://, file://, a path, or {PYTHON_DOCSTRINGS}"
    found = find(entry.uri, where=f"{where}.uri", allowed=allowed, open_store=open_store)
    paths = sorted(path for path in found.paths if _suffix(path) in _SUFFIXES)
    left_out = sorted(set(found.paths) - set(paths))
    if not paths or (left_out and not found.is_folder):
        what = f"{left_out[0]!r}" if left_out else f"nothing at {entry.uri!r}"
        raise DataError(explain(f"{where}.uri", found=what, allowed=_ALLOWED, remedy="correct the path"))
    store = open_store(found.uri)
    return Source(where, store, [file_entry(store, path) for path in paths], entry.format)


def _suffix(path: str) -> str:
    """`a/b.jsonl.gz` → `.jsonl`; Parquet compresses its columns itself."""
    name = PurePosixPath(path.lower())
    return name.with_suffix("").suffix if name.suffix in _COMPRESSIONS else name.suffix


def _read(store: ObjectStore, path: str) -> Iterator[tuple[int, Fields]]:
    """Each record with the number of its line or row, from 1."""
    with store.open(path) as stream:
        yield from _parquet(stream, path) if path.lower().endswith(".parquet") else _jsonl(stream, path)


def _jsonl(stream: BinaryIO, path: str) -> Iterator[tuple[int, Fields]]:
    number = 0
    try:
        for number, line in enumerate(_unpacked(stream, path), start=1):
            if line.strip():
                yield number, _object(line, f"{path}:{number}")
    except (OSError, EOFError) as error:
        raise _damaged(f"{path}:{number + 1}", error) from error


def _object(line: bytes, place: str) -> Fields:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        found = f"{line[:40].decode(errors='replace')!r}, which is no JSON ({error})"
        raise _no_object(place, found) from error
    if not isinstance(record, dict):
        raise _no_object(place, f"a {type(record).__name__}")
    return record


def _no_object(place: str, found: str) -> DataError:
    remedy = "correct the line, or take it out; blank lines are no records"
    return DataError(explain(place, found=found, allowed="a JSON object in each line", remedy=remedy))


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
        for batch in pq.ParquetFile(pa.PythonFile(stream, mode="r")).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                # What a file of mixed records lacks in one row, its column has as null.
                number += 1
                yield number, {field: value for field, value in row.items() if value is not None}
    except (OSError, pa.ArrowException) as error:
        raise _damaged(f"{path}:{number + 1}", error) from error


def _damaged(place: str, error: Exception) -> DataError:
    return DataError(f"{place}: {finding(found=error, allowed='a file that is whole', remedy='fetch the file again')}")
