"""From a document's name to the newest finished product of that name.

Products lie in folders named by their keys; people ask for them by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import cast

from pydantic import ValidationError

from kindling_api.base import Digest, Kind, Status, canonical_json
from kindling_api.errors import IntegrityError, NotFoundError, explain
from kindling_storage.store import ObjectStore

NAMES = "names"


class Published(Status):
    """A finished product, as its name leads to it."""

    uri: str
    """The product's folder."""
    digest: Digest
    """Digest of its manifest."""
    key: Digest
    """Identity of the work that made it."""
    uid: str | None = None
    """UID of the document that let the name lead to it, where it was one of a cluster."""


def publish(store: ObjectStore, kind: Kind, namespace: str, name: str, product: Published) -> None:
    """Let a name lead to a finished product from now on. `store` is the whole store, not the product's folder.

    Raises:
        StorageError: as `ObjectStore.put`.
    """
    store.put(_path(kind, namespace, name), canonical_json(product.document()))


def lookup(store: ObjectStore, kind: Kind, namespace: str, name: str) -> Published | None:
    """The newest finished product of that name; None where there is none.

    A store may be moved or copied as a whole: its names lead to the products in it, wherever it lies now.

    Raises:
        IntegrityError: what the name leads to is damaged.
        StorageError: as `ObjectStore.get`.
    """
    path = _path(kind, namespace, name)
    try:
        data = store.get(path)
    except NotFoundError:
        return None
    try:
        published = Published.model_validate_json(data)
    except ValidationError as error:
        found = f"{error.error_count()} wrong fields"
        allowed, remedy = "uri, digest and key of a product", "delete this object and run again; products are reused"
        raise IntegrityError(explain(f"{store.uri}/{path}", found=found, allowed=allowed, remedy=remedy)) from error
    folder = "/".join(published.uri.rstrip("/").split("/")[-2:])  # datasets/… or models/…
    return published.model_copy(update={"uri": store.child(folder).uri})


def lookup_all(store: ObjectStore) -> Iterator[tuple[str, Published]]:
    """All names of the store, as in `PretrainRun/default/first`, and their products; damaged ones are left out.

    Raises:
        StorageError: as `ObjectStore.list`.
    """
    for info in store.child(NAMES).list():
        kind, _, rest = info.path.removesuffix(".json").partition("/")
        namespace, _, name = rest.partition("/")
        with suppress(IntegrityError):
            if (published := lookup(store, cast(Kind, kind), namespace, name)) is not None:
                yield f"{kind}/{namespace}/{name}", published


def unpublish(store: ObjectStore, name: str) -> None:
    """Let a name, as `lookup_all` gives it, lead nowhere.

    Raises:
        StorageError: as `ObjectStore.delete`.
    """
    store.child(NAMES).delete(f"{name}.json")


def _path(kind: Kind, namespace: str, name: str) -> str:
    return f"{NAMES}/{kind}/{namespace}/{name}.json"
