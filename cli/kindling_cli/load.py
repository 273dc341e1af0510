"""Documents as `run` and `plan` see them: read, overridden, their paths no longer relative to anything."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kindling_api.documents import Document, LoadedDocument, load, parse
from kindling_api.errors import IntegrityError, SpecError, UserError, explain, near
from kindling_api.findings import path_of
from kindling_api.references import reference_to
from kindling_cli import overrides
from kindling_cli.overrides import Override

_PATH_FIELDS = ("uri", "blocklist")
_ABOUT = re.compile(r"(?P<title>[A-Za-z]+/\S+?): (?:(?P<field>spec[\w.\[\]]*): )?")
"""The beginning of a message about a document, and about a field of it."""


class Places:
    """Where documents and their fields were written, for messages about what no single document shows."""

    def __init__(self, loaded: Sequence[LoadedDocument]) -> None:
        self._loaded = {str(reference_to(one.document)): one for one in loaded}

    @contextmanager
    def named(self) -> Iterator[None]:
        """Lets errors that begin with a document's name begin with its file, and the line of the field that follows."""
        try:
            yield
        except (UserError, IntegrityError) as error:
            raise type(error)("\n".join(map(self._placed, str(error).splitlines()))) from error

    def _placed(self, sentence: str) -> str:
        found = _ABOUT.match(sentence)
        written = self._loaded.get(found["title"]) if found else None
        return f"{written.place(path_of(found['field'] or ''))}: {sentence}" if found and written else sentence


def load_documents(files: Sequence[Path], sets: Sequence[str] = ()) -> list[Document]:
    """The documents of files and folders, with `--set` applied and local paths made absolute.

    A path in a file is relative to that file, and one on the command line to the working folder.

    Raises:
        SpecError: a file, a document or an override is wrong.
    """
    return load_with_places(files, sets)[0]


def load_with_places(files: Sequence[Path], sets: Sequence[str] = ()) -> tuple[list[Document], Places]:
    """As `load_documents`, with the places at which they were written."""
    changes = [overrides.parse(text) for text in sets]
    loaded = load(files)
    titles = [str(reference_to(item.document)) for item in loaded]
    for change in changes:
        check_name(change.document, titles, "--set")
    documents = [
        _changed(item.document, item.folder, [change for change in changes if means(change.document, item.document)])
        for item in loaded
    ]
    return documents, Places(loaded)


def choose(documents: Sequence[Document], only: Sequence[str]) -> list[Document]:
    """The documents that `--only` names; all of them where it names none.

    Raises:
        SpecError: a name that no document has.
    """
    for name in only:
        check_name(name, [str(reference_to(document)) for document in documents], "--only")
    return [document for document in documents if not only or any(means(name, document) for name in only)]


def means(name: str, document: Document) -> bool:
    """Whether a name, or `Kind/name`, on the command line is this document's."""
    return name in (document.metadata.name, str(reference_to(document)))


def check_name(name: str, titles: Sequence[str], option: str) -> None:
    """Check that a name on the command line is that of a document.

    Raises:
        SpecError: it is not; the message lists near ones.
    """
    names = [*titles, *(title.partition("/")[2] for title in titles)]
    if name not in names:
        meant = near(name, names)
        remedy = f"did you mean `{meant}`?" if meant else "use one of these names"
        raise SpecError(explain(option, found=repr(name), allowed=", ".join(titles), remedy=remedy))


def _changed(document: Document, folder: Path, changes: Sequence[Override]) -> Document:
    tree = _absolute(document.model_dump(mode="json", by_alias=True, exclude_unset=True), folder)
    for change in changes:
        tree = overrides.put(tree, change)
    return parse(_absolute(tree, Path.cwd()), source=f"{reference_to(document)} with --set")


def _absolute(tree: Any, folder: Path) -> Any:
    """`tree` with every local path in it made absolute; `s3://`, `file://` and `builtin:` stay as they are."""
    if isinstance(tree, list):
        return [_absolute(item, folder) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: os.path.abspath(folder / value) if key in _PATH_FIELDS and _is_path(value) else _absolute(value, folder)
        for key, value in tree.items()
    }


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "://" not in value and not value.startswith("builtin:")
