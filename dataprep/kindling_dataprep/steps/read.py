"""From what a user wrote under `sources` to files, and from files to documents.

The list of inputs, with a digest each, is part of a dataset's key; it is therefore sorted, and holds nothing that
differs between machines which hold the same files.
"""

from __future__ import annotations

import functools
import os
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

import kindling_storage
from kindling_api.errors import DataError, SpecError, explain
from kindling_api.v1alpha1.dataset_build import Source, SourceFormat, SourceStorage
from kindling_dataprep.records import Document, InputFile, Remark, Removal, Span
from kindling_dataprep.steps.content import Content
from kindling_dataprep.steps.delimited import read_csv
from kindling_dataprep.steps.formats import read_jsonl, read_text
from kindling_dataprep.steps.parquet import read_parquet
from kindling_dataprep.steps.scan import scan
from kindling_dataprep.steps.unpack import LONGEST_WINDOW, is_packed
from kindling_storage import ObjectStore
from kindling_storage.globs import OpenStore, find, is_hidden, remedy_for_nothing

SCANNED_AT_ONCE = 8
"""Files; hashing runs beside Python, and a store far away takes its time for each."""

_STANDARD_LIBRARY = "builtin:python-stdlib"
_SCHEMES = f"s3://, file://, hf://datasets/, a path, or {_STANDARD_LIBRARY}"

_STANDARD_LIBRARY_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
"""Folders that hold other people's packages, or test data that is not meant to be read."""

_SUFFIXES: dict[SourceFormat, tuple[str, ...]] = {
    "text": (".txt", ".text", ".md", ".markdown", ".rst"),
    "code": (
        *(".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".cs", ".go", ".java", ".js", ".jsx", ".mjs"),
        *(".ts", ".tsx", ".rs", ".rb", ".php", ".pl", ".lua", ".r", ".jl", ".scala", ".kt", ".swift", ".hs", ".ml"),
        *(".ex", ".exs", ".erl", ".clj", ".lisp", ".el", ".sh", ".bash", ".sql", ".proto", ".css"),
    ),
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet",),
    "csv": (".csv", ".tsv"),
    "html": (".html", ".htm", ".xhtml"),
    "warc": (".warc",),
    "wet": (".wet",),
}
_FORMATS: dict[str, SourceFormat] = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes}
_KNOWN = "text, code, jsonl, parquet, csv, html, warc or wet"
_SHOWN_SUFFIXES = (
    "a suffix that tells the format: .txt, .md, .py, .c and other text and code, .jsonl, .parquet, .warc, .wet"
)


def list_inputs(
    sources: Sequence[Source], *, open_store: OpenStore, field: str = "spec.sources", first: int = 0
) -> list[Span]:
    """Every file that the sources name, source by source, sorted by path, as spans, with the digest of its content.

    A source is a file, a glob (`*`, `?`, `[…]`, and `**` for any number of folders), a folder, which is searched to
    its bottom, or `builtin:python-stdlib`; it lies at an `s3://`, `file://` or `hf://` URI or at a path relative to
    the working folder. A folder gives the files whose suffix tells a format, or all of them where the source has a
    `format`. Names that begin with a dot are left out of folders and globs. Messages count the sources of `field` from
    `first`.

    Raises:
        DataError: a source names nothing that can be read.
        SpecError: a scheme, a suffix or a format that is not among those allowed.
    """
    found = find_inputs(sources, open_store=open_store, field=field, first=first)
    named = [file for files in found for file in files.named]

    def spans_of(file: InputFile) -> list[Span]:
        source = sources[file.source]
        return scan(opener(source, open_store)(store_uri(file.uri)), file, source.text_field)

    pool = ThreadPoolExecutor(SCANNED_AT_ONCE)
    try:
        return [span for spans in pool.map(spans_of, named) for span in spans]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class SourceFiles:
    """What one source names."""

    named: list[InputFile]
    """Sorted by path, and without digests: nothing of them has been read."""
    left_out: Sequence[str]
    """Files of a folder whose suffix tells no format."""


def find_inputs(
    sources: Sequence[Source], *, open_store: OpenStore, field: str = "spec.sources", first: int = 0
) -> list[SourceFiles]:
    """The files of each source, found and not yet read; messages as in `list_inputs`.

    Raises:
        DataError, SpecError: as `list_inputs`.
    """
    found = []
    for number, source in enumerate(sources):
        where = f"{field}[{first + number}]"
        there = _find(f"{where}.uri", source, open_store)
        if not there.paths:
            raise _nothing(where, source.uri, there.left_out)
        named = [
            InputFile(number, there.uri, path, there.sizes[path], "", _format_of(where, source, path))
            for path in sorted(there.paths)
        ]
        found.append(SourceFiles(named, there.left_out))
    return found


def read(
    span: Span,
    source: Source,
    *,
    open_store: OpenStore = kindling_storage.open_store,
    window: int = LONGEST_WINDOW,
) -> Iterator[Document | Removal | Remark]:
    """The documents of a span, in order; a record that cannot be one comes as a Removal by the rule `badRecord`, one of
    an archive that is no page by `noPage`, and what was passed over without loss as a Remark.

    Raises:
        DataError: a Parquet file lacks the column `source.text_field`, or the column holds no text; a Zstandard file
            has a window of more than `window` bytes.
    """
    with opener(source, open_store)(store_uri(span.file.uri)).open(span.file.path) as stream:
        if span.file.format == "parquet":
            yield from read_parquet(stream, span, source.text_field)
            return
        content = Content(stream, span, window)
        match span.file.format:
            case "jsonl":
                yield from read_jsonl(content, span, source.text_field)
            case "csv":
                yield from read_csv(content, span, source.text_field)
            case "warc" | "wet":
                from kindling_dataprep.steps.warc import read_warc, read_wet  # not above: few builds need it

                yield from (read_warc if span.file.format == "warc" else read_wet)(content, span)
            case "html":
                from kindling_dataprep.steps.html import read_html  # not above: as before

                yield from read_html(content, span)
            case "text" | "code":
                yield from read_text(content, span)
        yield from content.remarks()


def opener(source: Source, open_store: OpenStore) -> OpenStore:
    """What opens a source's store: `open_store`, unless the source says where it lies."""
    storage = source.storage
    return open_store if storage is None else lambda uri: _opened(uri, storage)


@functools.lru_cache(maxsize=64)
def _opened(uri: str, storage: SourceStorage) -> ObjectStore:
    """Once a process, as stores are (see `Job.open_input`)."""
    return kindling_storage.open_store(
        uri,
        endpoint=storage.endpoint or _AWS.format(region=storage.region or "us-east-1"),
        region=storage.region,
        unsigned=storage.unsigned,
        requester_pays=storage.requester_pays,
        credentials_secret=storage.credentials_secret,
    )


_AWS = "https://s3.{region}.amazonaws.com"
"""Named, since the environment may name another server for what says nothing."""


@dataclass(frozen=True)
class _Found:
    """What a source names: files of one store."""

    uri: str
    paths: list[str]
    sizes: Mapping[str, int]
    left_out: Sequence[str] = ()
    """Files of a folder whose suffix tells no format."""


def _find(where: str, source: Source, open_store: OpenStore) -> _Found:
    if source.uri.startswith("builtin:"):
        return _find_builtin(where, source.uri)
    found = find(source.uri, where=where, allowed=_SCHEMES, open_store=opener(source, open_store))
    if found.is_folder and source.format is None:
        known = [path for path in found.paths if _format_by_name(path) is not None]
        left_out = [path for path in found.paths if _format_by_name(path) is None]
        return _Found(found.uri, known, found.sizes, left_out)
    return _Found(found.uri, found.paths, found.sizes)


def _nothing(where: str, uri: str, left_out: Sequence[str]) -> DataError:
    if left_out:
        found = f"no file in {uri!r} with a known suffix ({len(left_out)} with another, as {left_out[0]})"
        remedy = f"set {where}.format if the files are text, or name others"
        return DataError(explain(f"{where}.uri", found=found, allowed=_SHOWN_SUFFIXES, remedy=remedy))
    allowed = "a file, a folder with files in it, or a glob that fits some"
    remedy = remedy_for_nothing(uri)
    return DataError(explain(f"{where}.uri", found=f"nothing at {uri!r}", allowed=allowed, remedy=remedy))


def _find_builtin(where: str, uri: str) -> _Found:
    if uri != _STANDARD_LIBRARY:
        remedy = f"write {_STANDARD_LIBRARY}, or the path of your own files"
        raise SpecError(explain(where, found=repr(uri), allowed=_STANDARD_LIBRARY, remedy=remedy))
    root = sysconfig.get_path("stdlib")
    paths = []
    for folder, folders, names in os.walk(root):
        folders[:] = [each for each in folders if each not in _STANDARD_LIBRARY_LEFT_OUT and not is_hidden(each)]
        paths += [os.path.relpath(os.path.join(folder, name), root) for name in names if _is_standard_library(name)]
    return _Found(uri, paths, {path: os.path.getsize(os.path.join(root, path)) for path in paths})


def _is_standard_library(name: str) -> bool:
    # _sysconfigdata holds settings of the machine that built the interpreter
    return name.endswith(".py") and not name.startswith("_sysconfigdata") and not is_hidden(name)


def store_uri(uri: str) -> str:
    """The URI that `open_store` understands, for an `InputFile.uri`."""
    return f"file://{quote(sysconfig.get_path('stdlib'))}" if uri == _STANDARD_LIBRARY else uri


def _suffix(path: str) -> str:
    """`a/b.jsonl.gz` → `.jsonl`."""
    name = PurePosixPath(path.lower())
    return name.with_suffix("").suffix if is_packed(path) else name.suffix


def _format_by_name(path: str) -> SourceFormat | None:
    """Packed `.json` is JSON lines, as in the corpora that are handed out so; a plain one may be anything."""
    suffix = _suffix(path)
    return "jsonl" if suffix == ".json" and is_packed(path) else _FORMATS.get(suffix)


def _format_of(where: str, source: Source, path: str) -> SourceFormat:
    file_format = source.format or _format_by_name(path)
    if file_format is None:
        remedy = f"set {where}.format to {_KNOWN}, or leave the file out"
        allowed = f"{_SHOWN_SUFFIXES}; or a format"
        raise SpecError(explain(f"{where}.uri", found=repr(path), allowed=allowed, remedy=remedy))
    if file_format == "parquet" and is_packed(path):
        remedy = "unpack the file; Parquet compresses its columns itself"
        raise SpecError(explain(f"{where}.uri", found=repr(path), allowed="uncompressed .parquet files", remedy=remedy))
    return file_format
