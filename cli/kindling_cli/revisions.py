"""What documents name of the Hugging Face Hub, at one commit: a revision is looked up once, before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kindling_api.documents import Document, parse
from kindling_api.errors import SpecError, StorageError
from kindling_api.hub import is_hub, parse_hub_uri
from kindling_api.references import reference_to
from kindling_storage.hub.repository import pinned

WRITTEN = "publish"
"""The field that names a place of the Hub which is written to, and so moves."""


def pin_revisions(documents: Sequence[Document]) -> list[Document]:
    """The documents, with a commit in every URI of the Hub. So it is part of the keys of what they make, and of its
    manifests, and all processes read the same.

    Raises:
        SpecError: a URI has another form.
        StorageError: the Hub has no such revision, or does not answer; the message begins with the field.
    """
    return [_pinned(document) for document in documents]


def _pinned(document: Document) -> Document:
    title = str(reference_to(document))
    tree = document.model_dump(mode="json", by_alias=True, exclude_unset=True)
    spec = tree["spec"]
    found = spec | {key: _tree(value, f"{title}: spec.{key}") for key, value in spec.items() if key != WRITTEN}
    return document if found == spec else parse(tree | {"spec": found}, source=title)


def _tree(tree: Any, field: str) -> Any:
    if isinstance(tree, list):
        return [_tree(item, f"{field}[{number}]") for number, item in enumerate(tree)]
    if isinstance(tree, dict):
        return {key: _tree(value, f"{field}.{key}") for key, value in tree.items()}
    return _commit(tree, field) if isinstance(tree, str) and is_hub(tree) else tree


def _commit(uri: str, field: str) -> str:
    place = parse_hub_uri(uri, field)
    try:
        return str(pinned(place))
    except (SpecError, StorageError) as error:
        raise type(error)(f"{field}: {error}") from error
