"""From what a user wrote under `sources` to files, and from files to documents.

The list of inputs, with a digest each, is part of a dataset's key; it is therefore sorted, and holds nothing that
differs between machines which hold the same files.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

import kindling_storage
from kindling_api.errors import DataError, SpecError, explain
from kindling_api.v1alpha1.dataset_build import Source, SourceFormat
from kindling_dataprep.records import Document, InputFile, Removal, Span
from kindling_dataprep.steps.formats import read_jsonl, read_parquet, read_text
from kindling_dataprep.steps.scan import scan
from kindling_dataprep.steps.unpack import is_packed
from kindling_storage.globs import OpenStore, find, is_hidden

SCANNED_AT_ONCE = 8
"""Files; hashing runs beside Python, and a store far away takes its time for each."""

_STANDARD_LIBRARY = "builtin:python-stdlib"
_SCHEMES = f"s3://, file://, a path, or {_STANDARD_LIBRARY}"

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
    "warc": (".warc",),
    "wet": (".wet",),
}
_FORMATS: dict[str, SourceFormat] = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes}
_KNOWN = "text, code, jsonl, parquet, warc or wet"
_SHOWN_SUFFIXES = (
    "a suffix that tells the format: .txt, .md, .py, .c and other text and code, .jsonl, .parquet, .warc, .wet"
)


def list_inputs(sources: Sequence[Source], *, open_store: OpenStore) -> list[Span]:
    """Every file that the sources name, source by source, sorted by path, as spans, with the digest of its content.

    A source is a file, a glob (`*`, `?`, `[…]`, and `**` for any number of folders), a folder, which is searched to
    its bottom, or `builtin:python-stdlib`; it lies at an `s3://` or `file://` URI or at a path relative to the working
    folder. A folder gives the files whose suffix tells a format, or all of them where the source has a `format`. Names
    that begin with a dot are left out of folders and globs.

    Raises:
        DataError: a source names nothing that can be read.
        SpecError: a scheme, a suffix or a format that is not among those allowed.
    """
    named = []
    for number, source in enumerate(sources):
        where = f"spec.sources[{number}]"
        found = _find(f"{where}.uri", source, open_store)
        if not found.paths:
            raise _nothing(where, source.uri, found.left_out)
        for path in sorted(found.paths):
            named.append(InputFile(number, found.uri, path, 0, "", _format_of(where, source, path)))

    def spans_of(file: InputFile) -> list[Span]:
        return scan(open_store(store_uri(file.uri)), file, sources[file.source].text_field)

    pool = ThreadPoolExecutor(SCANNED_AT_ONCE)
    try:
        return [span for spans in pool.map(spans_of, named) for span in spans]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def read(
    span: Span, source: Source, *, open_store: OpenStore = kindling_storage.open_store
) -> Iterator[Document | Removal]:
    """The documents of a span, in order; a record that cannot be one comes as a Removal by the rule `badRecord`,
    and one of an archive that is no page by `noPage`.

    Raises:
        DataError: a Parquet file lacks the column `source.text_field`, or the column holds no text.
    """
    with open_store(store_uri(span.file.uri)).open(span.file.path) as stream:
        match span.file.format:
            case "parquet":
                yield from read_parquet(stream, span, source.text_field)
            case "jsonl":
                yield from read_jsonl(stream, span, source.text_field)
            case "warc" | "wet":
                from kindling_dataprep.steps.warc import read_warc, read_wet  # not above: few builds need it

                yield from (read_warc if span.file.format == "warc" else read_wet)(stream, span)
            case "text" | "code":
                yield from read_text(stream, span)


@dataclass(frozen=True)
class _Found:
    """What a source names: files of one store."""

    uri: str
    paths: list[str]
    left_out: Sequence[str] = ()
    """Files of a folder whose suffix tells no format."""


def _find(where: str, source: Source, open_store: OpenStore) -> _Found:
    if source.uri.startswith("builtin:"):
        return _find_builtin(where, source.uri)
    found = find(source.uri, where=where, allowed=_SCHEMES, open_store=open_store)
    if found.is_folder and source.format is None:
        known = [path for path in found.paths if _suffix(path) in _FORMATS]
        return _Found(found.uri, known, [path for path in found.paths if _suffix(path) not in _FORMATS])
    return _Found(found.uri, found.paths)


def _nothing(where: str, uri: str, left_out: Sequence[str]) -> DataError:
    if left_out:
        found = f"no file in {uri!r} with a known suffix ({len(left_out)} with another, as {left_out[0]})"
        remedy = f"set {where}.format if the files are text, or name others"
        return DataError(explain(f"{where}.uri", found=found, allowed=_SHOWN_SUFFIXES, remedy=remedy))
    allowed = "a file, a folder with files in it, or a glob that fits some"
    return DataError(explain(f"{where}.uri", found=f"nothing at {uri!r}", allowed=allowed, remedy="correct the path"))


def _find_builtin(where: str, uri: str) -> _Found:
    if uri != _STANDARD_LIBRARY:
        remedy = f"write {_STANDARD_LIBRARY}, or the path of your own files"
        raise SpecError(explain(where, found=repr(uri), allowed=_STANDARD_LIBRARY, remedy=remedy))
    root = sysconfig.get_path("stdlib")
    paths = []
    for folder, folders, names in os.walk(root):
        folders[:] = [each for each in folders if each not in _STANDARD_LIBRARY_LEFT_OUT and not is_hidden(each)]
        paths += [os.path.relpath(os.path.join(folder, name), root) for name in names if _is_standard_library(name)]
    return _Found(uri, paths)


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


def _format_of(where: str, source: Source, path: str) -> SourceFormat:
    file_format = source.format or _FORMATS.get(_suffix(path))
    if file_format is None:
        remedy = f"set {where}.format to {_KNOWN}, or leave the file out"
        allowed = f"{_SHOWN_SUFFIXES}; or a format"
        raise SpecError(explain(f"{where}.uri", found=repr(path), allowed=allowed, remedy=remedy))
    if file_format == "parquet" and is_packed(path):
        remedy = "unpack the file; Parquet compresses its columns itself"
        raise SpecError(explain(f"{where}.uri", found=repr(path), allowed="uncompressed .parquet files", remedy=remedy))
    return file_format
