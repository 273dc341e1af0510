"""From what a user types (a folder, a URI, a name) to a store, and to the product that lies in it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from kindling_api.base import Kind
from kindling_api.errors import SpecError, explain
from kindling_api.hub import is_hub, parse_hub_uri
from kindling_api.v1alpha1.products import MANIFEST
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_storage import ObjectStore, open_store
from kindling_storage.hub.repository import pinned
from kindling_storage.names import lookup

MODELS: tuple[Kind, ...] = ("AlignmentRun", "PretrainRun")
PRODUCTS: tuple[Kind, ...] = (*MODELS, "DatasetBuild")

NAME = re.compile(r"((?P<kind>[A-Za-z]+)/)?(?P<name>[a-z0-9]([-a-z0-9]*[a-z0-9])?)")


@dataclass(frozen=True)
class ProductFolder:
    """A product's folder, and how to say where it is."""

    store: ObjectStore
    """The folder itself."""
    shown: str
    """The name as a user would type it."""


def storage_of(text: str) -> StorageSpec:
    """The store of `--store`: a URI as it is, anything else as a folder here.

    Raises:
        SpecError: nothing, or a scheme that is neither file nor s3.
    """
    scheme, separator, _ = text.partition("://")
    if not text.strip() or (separator and scheme not in ("file", "s3")):
        allowed = "a folder, file://… or s3://bucket/prefix"
        raise SpecError(explain("--store", found=repr(text), allowed=allowed, remedy="use one of these forms"))
    return StorageSpec(uri=text if separator else file_uri(Path(text)))


def file_uri(path: Path) -> str:
    """`file://` and the absolute path."""
    return f"file://{quote(os.fsencode(path.expanduser().absolute()))}"


def check_free(folder: Path) -> None:
    """Raises SpecError where there is something already that an export would mix with."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        allowed, remedy = "a new or an empty folder", "choose another one, or empty it"
        raise SpecError(explain(str(folder), found="something there already", allowed=allowed, remedy=remedy))


def shown(uri: str) -> str:
    """A URI as a user would type it: `file://` below the working folder becomes a relative path."""
    if not uri.startswith("file://"):
        return uri
    path = Path(unquote(uri.removeprefix("file://")))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def find(what: str, store: str, kinds: Sequence[Kind]) -> ProductFolder:
    """The product that `what` means: a URI, a name in the store, `Kind/name`, or a folder.

    Raises:
        SpecError: there is no such product; the message lists near names.
        StorageError: the store cannot be read.
    """
    if is_hub(what):
        return _at(str(pinned(parse_hub_uri(what, "the model"))))
    if "://" in what:
        return _at(storage_of(what).uri)
    whole = open_store(storage_of(store))
    if match := NAME.fullmatch(what):
        for kind in kinds if match["kind"] is None else [kind for kind in PRODUCTS if kind == match["kind"]]:
            if published := lookup(whole, kind, "default", match["name"]):
                return _still_there(_at(published.uri), f"{kind}/{match['name']}")
    if Path(what).is_dir():
        return _at(file_uri(Path(what)))
    others = [name for name in names_in(whole, PRODUCTS) if name.endswith(f"/{what}")]
    near = difflib.get_close_matches(what, names_in(whole, kinds), n=3, cutoff=0.5) or names_in(whole, kinds)[:5]
    raise SpecError(
        explain(
            repr(what),
            found=others[0] if others else f"neither a folder nor a name in {shown(whole.uri)}",
            allowed=", ".join(near) if near else f"a finished {' or '.join(kinds)}, of which the store has none",
            remedy="correct the name, or give the store with --store"
            if near
            else "run `kindling run` first, or give --store",
        )
    )


def _still_there(place: ProductFolder, title: str) -> ProductFolder:
    if place.store.exists(MANIFEST):
        return place
    found = f"nothing in {place.shown}, where it was once finished"
    remedy = "run its document again, or copy the folder back"
    raise SpecError(explain(title, found=found, allowed="a product that is still in the store", remedy=remedy))


def names_in(store: ObjectStore, kinds: Sequence[Kind]) -> list[str]:
    """`Kind/name` of every finished product in the store."""
    return [
        f"{kind}/{info.path.rpartition('/')[2].removesuffix('.json')}"
        for kind in kinds
        for info in store.list(f"names/{kind}/default/")
    ]


def _at(uri: str) -> ProductFolder:
    uri = uri.rstrip("/")
    return ProductFolder(open_store(uri), shown(uri))
