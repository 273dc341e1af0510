"""What lies in a store, what uses it, and what nobody would miss.

A product is used by the name that leads to it and by every product that was made from it, whatever lies between. What a
process works at now, and all that it reads, is in use as well. The rest may go.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kindling_api.errors import IntegrityError
from kindling_api.v1alpha1.products import MANIFEST, CheckpointManifest, DatasetManifest, Manifest, ModelManifest
from kindling_storage.cleanup import FOLDERS
from kindling_storage.commit import damage, read_manifest
from kindling_storage.holder import Holder
from kindling_storage.lock import LOCK, held_by, lock
from kindling_storage.names import lookup_all
from kindling_storage.origin import read_origin
from kindling_storage.store import ObjectInfo, ObjectStore

State = Literal["finished", "damaged", "unfinished"]
_CHECKPOINT = re.compile(r"checkpoints/[^/]+/" + re.escape(MANIFEST))


@dataclass(frozen=True)
class Item:
    """A product of a store, or what there is of one."""

    folder: str
    """As in `models/0123456789abcdef`, with the first digits of the key."""
    state: State
    names: tuple[str, ...]
    """The documents whose newest product it is, as in `PretrainRun/default/first`."""
    made_by: str | None
    """The document that was the last to make it, where that is known."""
    digest: str | None
    """Of the manifest, where there is a sound one."""
    size: int
    """In bytes, with checkpoints and all that lies beside the product."""
    modified: float
    """When something in it was written last, in seconds since 1970."""
    digests: frozenset[str] = frozenset()
    """Its own, and those of its checkpoints: what others name it by."""
    reads: frozenset[str] = frozenset()
    """Digests and folders of the products that it was made from."""
    faults: tuple[str, ...] = ()
    """What is not as the manifest promises."""
    holder: Holder | None = None
    """The process that works at it now."""


@dataclass(frozen=True)
class Verdict:
    """Whether a product may go, and why not."""

    item: Item
    stays: str
    """Why it stays; empty where it may go."""


def items_of(store: ObjectStore) -> list[Item]:
    """Everything that lies in the whole store `store`, sorted by folder.

    Raises:
        StorageError: the store cannot be read.
    """
    names: dict[str, list[str]] = defaultdict(list)
    for name, published in lookup_all(store):
        names["/".join(published.uri.split("/")[-2:])].append(name)
    found: dict[str, list[ObjectInfo]] = defaultdict(list)
    for info in (*store.list("datasets/"), *store.list("models/")):
        folder = "/".join(info.path.split("/")[:2])
        if FOLDERS.fullmatch(folder) and info.path != folder:
            found[folder].append(info)
    return [_item(store.child(folder), folder, infos, tuple(names[folder])) for folder, infos in sorted(found.items())]


def used_by(items: Iterable[Item]) -> dict[str, list[Item]]:
    """By each folder: the other products that were made from what lies there."""
    items = list(items)
    owners: dict[str, set[str]] = defaultdict(set)
    for item in items:
        for named in (item.folder, *item.digests):
            owners[named].add(item.folder)
    users: dict[str, list[Item]] = {item.folder: [] for item in items}
    for item in items:
        for folder in {owner for read in item.reads for owner in owners.get(read, ())} - {item.folder}:
            users[folder].append(item)
    return users


def verdicts(items: Sequence[Item], *, now: float, older_than: float, unused: bool) -> list[Verdict]:
    """Which products may go: those that nobody finished, and, with `unused`, finished ones that nothing uses.

    Args:
        older_than: in seconds; nothing in what goes was written since.
        unused: whether finished products may go.
    """
    users = used_by(items)
    first = {item.folder: _wanted(item, now, older_than, unused) for item in items}
    kept = {folder for folder, reason in first.items() if reason}
    while more := {
        folder for folder, using in users.items() if folder not in kept and any(one.folder in kept for one in using)
    }:
        kept |= more
    return [Verdict(item, first[item.folder] or _needed(users[item.folder], kept)) for item in items]


def discard(store: ObjectStore, item: Item) -> bool:
    """Delete what lies in the item's folder, unless a name has come to lead there since; whether that was done.

    Raises:
        ConflictError: a process works there.
        StorageError: the store cannot be reached, or refuses.
    """
    product = store.child(item.folder)
    with lock(product, LOCK):
        if any(published.uri == product.uri for _, published in lookup_all(store)):
            return False
        product.delete(MANIFEST)
        product.delete_prefix("")
    product.delete(LOCK)
    return True


def _item(product: ObjectStore, folder: str, infos: Sequence[ObjectInfo], names: tuple[str, ...]) -> Item:
    sizes = {info.path.removeprefix(f"{folder}/"): info.size for info in infos}
    origin = read_origin(product)
    state, digest, faults = _condition(product, folder, sizes)
    manifests = list(_manifests(product, folder, sizes))
    stated = (reads for manifest in manifests for reads in _lineage(manifest))
    recorded = (named for read in (origin.reads if origin else ()) for named in (read.digest, _folder_of(read.uri)))
    return Item(
        folder=folder,
        state=state,
        names=names,
        made_by=origin.made_by if origin else None,
        digest=digest,
        size=sum(sizes.values()),
        modified=max(info.modified or 0.0 for info in infos),
        digests=frozenset(manifest.digest for manifest in manifests),
        reads=frozenset(named for named in (*stated, *recorded) if named is not None),
        faults=faults,
        holder=held_by(product, LOCK) if LOCK in sizes else None,
    )


def _condition(
    product: ObjectStore, folder: str, sizes: Mapping[str, int]
) -> tuple[State, str | None, tuple[str, ...]]:
    """State, digest and faults of a product."""
    try:
        manifest = read_manifest(product, _model_of(folder))
    except IntegrityError:
        return "damaged", None, (f"{MANIFEST} is torn",)
    if manifest is None:
        return "unfinished", None, ()
    faults = tuple(damage(manifest, sizes))
    return "damaged" if faults else "finished", manifest.digest, faults


def _manifests(product: ObjectStore, folder: str, paths: Collection[str]) -> Iterator[Manifest]:
    """The sound manifests in a folder: the product's, and its checkpoints'."""
    places = [("", _model_of(folder))] if MANIFEST in paths else []
    checkpoints = [
        (path.removesuffix(f"/{MANIFEST}"), CheckpointManifest) for path in paths if _CHECKPOINT.fullmatch(path)
    ]
    for place, model in (*places, *checkpoints):
        try:
            manifest = read_manifest(product.child(place) if place else product, model)
        except IntegrityError:
            continue
        if manifest is not None:
            yield manifest


def _model_of(folder: str) -> type[DatasetManifest] | type[ModelManifest]:
    return DatasetManifest if folder.startswith("datasets/") else ModelManifest


def _lineage(manifest: Manifest) -> list[str | None]:
    match manifest:
        case CheckpointManifest(dataset=dataset):
            return [dataset]
        case ModelManifest(dataset=dataset, base=base, dataset_uri=uri):
            return [dataset, base, _folder_of(uri)]
    return []


def _folder_of(uri: str) -> str | None:
    """The folder of the product that a URI leads into, wherever its store was then."""
    found = re.search(f"(^|/)({FOLDERS.pattern})(/|$)", uri)
    return uri[found.start(2) : found.start(2) + len(found[2])] if found else None


def _wanted(item: Item, now: float, older_than: float, unused: bool) -> str:
    """Why a product stays for its own sake; empty where it does not."""
    if item.holder is not None:
        return f"process {item.holder.get('pid')} on {item.holder.get('host')} works at it"
    if item.names:
        return "its name leads to it"
    if now - item.modified < older_than:
        return "it is younger"
    return "it is finished" if item.state == "finished" and not unused else ""


def _needed(users: Sequence[Item], kept: Collection[str]) -> str:
    needing = sorted(title(one) for one in users if one.folder in kept)
    return f"{needing[0]} was made from it" if needing else ""


def title(item: Item) -> str:
    """How people know a product: by its document, or else by its folder."""
    return next((short_name(name) for name in (*item.names, *([item.made_by] if item.made_by else []))), item.folder)


def short_name(name: str) -> str:
    """`PretrainRun/first` for what `PretrainRun/default/first` is in the store; other namespaces stay."""
    kind, namespace, rest = name.split("/", 2)
    return f"{kind}/{rest}" if namespace == "default" else name
