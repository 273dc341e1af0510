"""Making a product exist: its files first, its manifest last.

A product either has a manifest and is whole, or has none and does not exist. The manifest is put with one conditional
write, so that of two processes with different results one learns of the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO, TypeVar

from pydantic import ValidationError

from kindling_api.errors import ConflictError, IntegrityError, NotFoundError, explain
from kindling_api.v1alpha1.products import MANIFEST, FileEntry, Manifest
from kindling_storage.atomic import CHUNK_BYTES
from kindling_storage.store import Data, ObjectStore

AnyManifest = TypeVar("AnyManifest", bound=Manifest)


def put_file(store: ObjectStore, path: str, data: Data) -> FileEntry:
    """Put one file of a product, and describe it for the manifest; the digest is taken while it is written.

    Raises:
        StorageError: as `ObjectStore.put`.
    """
    info = store.put(path, data)
    assert info.digest is not None
    return FileEntry(path=path, size=info.size, digest=info.digest)


def file_entry(store: ObjectStore, path: str) -> FileEntry:
    """Describe, for the manifest, a file that is in the store already; it is read through.

    Raises:
        NotFoundError: there is none.
        StorageError: as `ObjectStore.open`.
    """
    with store.open(path) as stream:
        size, digest = _measure(stream)
    return FileEntry(path=path, size=size, digest=digest)


def commit(store: ObjectStore, manifest: Manifest) -> str:
    """Put `manifest.json` into the product's folder `store`, and return the product's digest.

    All files must have been put before. Committing the same manifest again is fine.

    Raises:
        ConflictError: another product has been committed at this place.
        StorageError: as `ObjectStore.put_if_absent`.
    """
    data = manifest.to_bytes()
    if store.put_if_absent(MANIFEST, data) or store.get(MANIFEST) == data:
        return manifest.digest
    raise ConflictError(
        explain(
            f"{store.uri}/{MANIFEST}",
            found="a finished product with other contents",
            allowed=f"none, or the one with digest {manifest.digest}",
            remedy="use the one that is there, or delete its folder and run again",
        )
    )


def read_manifest(store: ObjectStore, model: type[AnyManifest]) -> AnyManifest | None:
    """The manifest of the product in the folder `store`; None where no product has been committed.

    Raises:
        IntegrityError: it is torn, or is not the manifest of such a product.
        StorageError: as `ObjectStore.get`.
    """
    try:
        data = store.get(MANIFEST)
    except NotFoundError:
        return None
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise IntegrityError(
            explain(
                f"{store.uri}/{MANIFEST}",
                found=f"{where + ': ' if where else ''}{first['msg']}",
                allowed=f"the {model.__name__} that Kindling writes",
                remedy="check the URI; a damaged product is made again once its folder is deleted",
            )
        ) from error


def damage(manifest: Manifest, sizes: Mapping[str, int]) -> list[str]:
    """A sentence for each file of a product that is not there, or not of its size; content is left to `verify`.

    Args:
        sizes: of the objects in the product's folder, in bytes.
    """
    lost = [f"{file.path} is missing" for file in manifest.files if file.path not in sizes]
    wrong = [
        f"{file.path} has {sizes[file.path]} bytes, not {file.size}"
        for file in manifest.files
        if sizes.get(file.path, file.size) != file.size
    ]
    return [*lost, *wrong]


def faults_of(store: ObjectStore, model: type[Manifest]) -> list[str]:
    """What of the product in the folder `store` is not as promised, as far as sizes tell; nothing where there is none.

    Raises:
        StorageError: as `ObjectStore.list`.
    """
    try:
        manifest = read_manifest(store, model)
    except IntegrityError:
        return [f"{MANIFEST} is torn, or of another kind of product"]
    return [] if manifest is None else damage(manifest, {info.path: info.size for info in store.list()})


def read_whole(store: ObjectStore, model: type[AnyManifest]) -> AnyManifest | None:
    """The manifest of the product in the folder `store`, if there is one and the product is whole; None where it has to
    be made, or made again.

    Raises:
        StorageError: as `ObjectStore.list`.
    """
    return read_manifest(store, model) if not faults_of(store, model) else None


def discard_damaged(store: ObjectStore, model: type[Manifest]) -> None:
    """Let a product that is not whole exist no more, so that another can be committed; the caller has its lock.

    Raises:
        StorageError: as `ObjectStore.delete`.
    """
    if faults_of(store, model):
        store.delete(MANIFEST)


def verify(store: ObjectStore, manifest: Manifest) -> Iterator[str]:
    """Read every file of the product in the folder `store`, and yield a sentence for each that is not as promised.

    Raises:
        StorageError: as `ObjectStore.open`.
    """
    for promised in manifest.files:
        try:
            found = file_entry(store, promised.path)
        except NotFoundError:
            yield f"{promised.path} is missing"
            continue
        if found.size != promised.size:
            yield f"{promised.path} has {found.size} bytes, not {promised.size}"
        elif found.digest != promised.digest:
            yield f"{promised.path} has digest {found.digest}, not {promised.digest}"


def _measure(stream: BinaryIO) -> tuple[int, str]:
    """Size in bytes and digest of what is left in the stream."""
    size, digest = 0, hashlib.sha256()
    while chunk := stream.read(CHUNK_BYTES):
        size += len(chunk)
        digest.update(chunk)
    return size, f"sha256:{digest.hexdigest()}"
