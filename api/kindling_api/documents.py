"""The one loader: files and folders of YAML in, checked documents out, read as `kubectl apply -f` reads them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kindling_api.base import API_VERSION, GROUP
from kindling_api.errors import SpecError, explain, near
from kindling_api.findings import findings, quoted
from kindling_api.schema import Schema, at, structural_schema
from kindling_api.v1alpha1.alignment_run import AlignmentRun
from kindling_api.v1alpha1.dataset_build import DatasetBuild
from kindling_api.v1alpha1.pretrain_run import PretrainRun
from kindling_api.yaml_source import FieldPath, YamlDocument, read_yaml

Document = DatasetBuild | PretrainRun | AlignmentRun

KINDS: dict[str, type[Document]] = {
    "DatasetBuild": DatasetBuild,
    "PretrainRun": PretrainRun,
    "AlignmentRun": AlignmentRun,
}

SUFFIXES = (".yaml", ".yml", ".json")
"""The files that are read out of a folder, as kubectl does."""

LARGEST_FILE = 3 * 2**20
"""Bytes; more than this an API server does not take either."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedDocument:
    """A checked document and where it was written."""

    document: Document
    source: str
    """`file:line` of its beginning."""
    folder: Path
    """The folder of its file, which relative paths in it are relative to."""
    file: str
    """The file, as it was named."""
    lines: Mapping[FieldPath, int]
    """The line of each field."""

    def place(self, field: FieldPath) -> str:
        """`file:line` of a field, or of the nearest thing around it that was written."""
        written = YamlDocument(None, self.lines)
        return written.place(self.file, written.line_of(field))


def load(paths: Sequence[Path]) -> list[LoadedDocument]:
    """All documents of Kindling in files and folders (not their subfolders), in the order in which they are written.

    Documents of other groups (a Secret, a Namespace) are left out with a note in the log.

    Raises:
        SpecError: anything in any file is wrong; the message has one line for each thing, beginning with `file:line`.
    """
    loaded: list[LoadedDocument] = []
    wrong: list[str] = []
    for path in _files(paths):
        for document in read_yaml(_text(path), str(path)):
            try:
                if _is_ours(document, str(path)):
                    loaded.append(_checked(document, str(path), path.parent))
            except SpecError as error:
                wrong.append(str(error))
    wrong += _duplicates(loaded)
    if wrong:
        raise SpecError("\n".join(wrong))
    if not loaded:
        where = ", ".join(map(str, paths))
        allowed = f"at least one document with apiVersion: {API_VERSION}"
        raise SpecError(explain(where, found="no document of Kindling", allowed=allowed, remedy="give other files"))
    return loaded


def parse(value: Any, *, source: str = "") -> Document:
    """One document from JSON-like data, as an API server holds it.

    Raises:
        SpecError: as `load`, with `source`, where one is given, in the place of `file:line`.
    """
    document = YamlDocument(value)
    if not _is_ours(document, source):
        raise _wrong_header(document, source, "apiVersion", value["apiVersion"], [API_VERSION])
    return _checked(document, source).document


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
            if not inside:
                allowed = f"a folder with {', '.join(SUFFIXES)} files"
                found, remedy = "a folder without any", "give a folder of documents, or the file itself"
                raise SpecError(explain(str(path), found=found, allowed=allowed, remedy=remedy))
            files += inside
        elif path.exists():  # a pipe too, as in `kindling run <(…)`
            files.append(path)
        else:
            beside = path.parent.iterdir() if path.parent.is_dir() else ()
            meant = near(path.name, [file.name for file in beside])
            remedy = f"did you mean `{path.parent / meant}`?" if meant else "check the path"
            allowed = "a file or a folder that exists"
            raise SpecError(explain(str(path), found="nothing there", allowed=allowed, remedy=remedy))
    return list(dict.fromkeys(files))


def _text(path: Path) -> str:
    try:
        if (size := path.stat().st_size) > LARGEST_FILE:
            found, allowed = f"{size} bytes", f"at most {LARGEST_FILE}"
            raise SpecError(explain(str(path), found=found, allowed=allowed, remedy="give a file of documents"))
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        found = (error.strerror or "an error").lower()
        remedy = "check the file's permissions"
        raise SpecError(explain(str(path), found=found, allowed="a file that can be read", remedy=remedy)) from None
    except UnicodeDecodeError as error:
        found = f"a byte that is not UTF-8 at offset {error.start}"
        remedy = f"save it as UTF-8, as in: iconv -f ISO-8859-1 -t UTF-8 {path}"
        raise SpecError(explain(str(path), found=found, allowed="YAML text in UTF-8", remedy=remedy)) from None
    return text.replace("\t", " ") if path.suffix == ".json" else text  # JSON may be indented with tabs, YAML may not


def _is_ours(document: YamlDocument, source: str) -> bool:
    """Whether a document is of Kindling.

    Raises:
        SpecError: it is no Kubernetes document, or nearly one of ours.
    """
    value, where = document.value, document.place(source, document.line_of(()))
    if not isinstance(value, dict):
        allowed = "an object with apiVersion, kind, metadata and spec"
        raise SpecError(
            explain(where or "document", found=quoted(value), allowed=allowed, remedy="give a document of Kindling")
        )
    version, kind = value.get("apiVersion"), value.get("kind")
    known = kind in list(KINDS)
    if version == API_VERSION and known:
        return True
    group = str(version).partition("/")[0]
    if (group == GROUP and version != API_VERSION) or known:
        raise _wrong_header(document, source, "apiVersion", version, [API_VERSION])
    if group == GROUP or not isinstance(version, str) or not isinstance(kind, str):
        raise _wrong_header(document, source, "kind", kind, list(KINDS))
    log.warning("%s: %s %s is not of %s and is left out", where, version, kind, GROUP)
    return False


def _wrong_header(document: YamlDocument, source: str, field: str, value: object, choices: list[str]) -> SpecError:
    meant = near(value, choices) if isinstance(value, str) else None
    place = document.place(source, document.line_of((field,)))
    return SpecError(
        explain(
            f"{place}: {field}" if place else field,
            found=quoted(value),
            allowed=f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0],
            remedy=f"did you mean `{meant}`?" if meant else f"write {field}: {choices[0]}",
        )
    )


def _checked(document: YamlDocument, source: str, folder: Path = Path()) -> LoadedDocument:
    model = KINDS[document.value["kind"]]
    schema = structural_schema(model)
    value = _without_nulls(document.value, schema)
    try:
        checked = model.model_validate_json(json.dumps(value), by_alias=True, by_name=False)
    except ValidationError as error:
        sentences = findings(error, YamlDocument(value, document.lines), schema, source)
        raise SpecError("\n".join(sentences)) from None
    return LoadedDocument(checked, document.place(source, document.line_of(())), folder, source, document.lines)


def _without_nulls(value: Any, schema: Schema) -> Any:
    """A field that is null is an absent one, as for an API server; an unknown field is not, and stays to be refused."""
    if isinstance(value, list):
        return [_without_nulls(item, at(schema, [0]) or {}) for item in value]
    if not isinstance(value, dict):
        return value
    parts = {key: at(schema, [key]) for key in value}
    return {
        key: _without_nulls(item, parts[key] or {})
        for key, item in value.items()
        if item is not None or parts[key] is None
    }


def _duplicates(loaded: Iterable[LoadedDocument]) -> list[str]:
    first: dict[tuple[str, str, str], str] = {}
    wrong: list[str] = []
    for one in loaded:
        document = one.document
        name = (document.kind, document.metadata.namespace, document.metadata.name)
        if name in first:
            found = f"{document.kind} {document.metadata.name} a second time (first at {first[name]})"
            allowed = "each name once for a kind and a namespace"
            wrong.append(explain(one.source, found=found, allowed=allowed, remedy="rename or remove one of the two"))
        first.setdefault(name, one.source)
    return wrong
