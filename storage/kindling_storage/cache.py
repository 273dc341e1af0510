"""Objects as local files, for readers that map them into memory."""

from __future__ import annotations

import fcntl
from pathlib import Path

from kindling_api.errors import IntegrityError, explain
from kindling_storage.atomic import local_errors, make_folder, sweep
from kindling_storage.store import ObjectStore, not_found


def materialize(store: ObjectStore, path: str, digest: str, cache: Path) -> Path:
    """A local file with the content of an object, which must not be written to.

    A store on this machine gives the object itself, unread. From elsewhere it is downloaded once into `cache`, under
    its digest and verified; processes that want it at the same time wait for the one that downloads.

    Args:
        digest: what the manifest promises, `sha256:…`.
        cache: a folder; it is made, and may be deleted whenever no process uses its files.

    Raises:
        NotFoundError: there is no such object.
        IntegrityError: the content differs from its digest.
        StorageError: the store cannot be read, or the cache not written.
    """
    local = store.local_path(path)
    if local is not None:
        if not local.is_file():
            raise not_found(store.uri, path)
        return local
    cached = cache / digest.removeprefix("sha256:")
    with local_errors(cached):
        make_folder(cache)
        lock = (cache / f"{cached.name}.lock").open("wb")
    with lock:  # closing it frees the lock
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cached.exists():
            sweep(cache)
            _download(store, path, digest, cached)
    return cached


def _download(store: ObjectStore, path: str, digest: str, cached: Path) -> None:
    arriving = cached.with_suffix(".part")
    try:
        found = store.download(path, arriving).digest
        if found != digest:
            remedy = "run again; if it stays, the object is damaged: delete the product's folder and make it again"
            raise IntegrityError(explain(f"{store.uri}/{path}", found=found, allowed=digest, remedy=remedy))
        arriving.rename(cached)
    finally:
        arriving.unlink(missing_ok=True)
