"""One repository of the Hub at one commit: which files it has, and each of them fetched once.

Files are fetched by the Hub's own library, into its cache, so that what transformers has fetched is there for Kindling,
and the other way round. A commit never changes: its listing is kept beside the files, and what has been fetched is
found without a network.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from kindling_api.errors import StorageError
from kindling_api.hub import HubUri
from kindling_storage.atomic import write_atomically
from kindling_storage.hub.errors import asking, cache_folder, damaged, endpoint
from kindling_storage.store import not_found

_READ_AT_ONCE = 1 << 20
_SECONDS = 30.0
"""Longest wait for the first byte of an answer."""


@dataclass(frozen=True)
class HubFile:
    """A file of a commit, as the Hub lists it."""

    size: int
    """In bytes."""
    sha1: str
    """Git's name of its content, or, for a large file, of the text that points at it."""
    sha256: str | None
    """Of the content of a large file."""


def pinned(place: HubUri) -> HubUri:
    """The same place at the commit that its revision means now.

    Raises:
        StorageError: the Hub does not know it, or does not answer.
    """
    return place if place.is_pinned else replace(place, revision=_commit(replace(place, path=""), endpoint()))


def files_of(place: HubUri) -> dict[str, HubFile]:
    """The files of a pinned place's repository, by path, wherever in it the place is.

    Raises:
        StorageError: the Hub does not know it, or does not answer.
    """
    return _files(replace(place, path=""), endpoint(), cache_folder())


def fetched(place: HubUri, path: str) -> Path:
    """A file of a pinned place's repository on this machine, whole; it must not be written to.

    Raises:
        NotFoundError: there is no such file.
        IntegrityError: it arrived otherwise than the Hub lists it.
        StorageError: it cannot be fetched, or not be kept.
    """
    place = replace(place, path="")
    known = files_of(place).get(path)
    if known is None:
        raise not_found(str(place), path)
    return asking(place, path, lambda: _fetched(place, path, known))


def _fetched(place: HubUri, path: str, known: HubFile) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    where: dict[str, Any] = {"repo_type": place.kind, "revision": place.revision, "cache_dir": cache_folder()}
    there = try_to_load_from_cache(place.name, path, **where)
    if isinstance(there, str) and os.path.getsize(there) == known.size:
        return Path(there)
    if isinstance(there, str):
        _forget(Path(there))
    local = Path(hf_hub_download(place.name, path, **where, endpoint=endpoint(), etag_timeout=_SECONDS))
    found = _fault(local, known)
    if found:
        _forget(local)
        raise damaged(f"{place}/{path}", found)
    return local


def _fault(local: Path, known: HubFile) -> str:
    """What is wrong with a file that has just arrived."""
    if (size := local.stat().st_size) != known.size:
        return f"{size:,} bytes instead of {known.size:,}"
    digest = hashlib.sha256() if known.sha256 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with local.open("rb") as stream:
        while chunk := stream.read(_READ_AT_ONCE):
            digest.update(chunk)
    expected = known.sha256 or known.sha1
    return "" if digest.hexdigest() == expected else f"content {digest.hexdigest()[:12]}… instead of {expected[:12]}…"


def _forget(local: Path) -> None:
    """Take a file out of the cache, and what it is a link to."""
    with suppress(FileNotFoundError):
        local.resolve().unlink()
    with suppress(FileNotFoundError):
        local.unlink()


@cache
def _commit(place: HubUri, hub: str) -> str:
    """Once in a process, so that all that it reads is of one commit."""
    from huggingface_hub import HfApi

    def ask() -> str:
        info = HfApi(endpoint=hub).repo_info(
            place.name, repo_type=place.kind, revision=place.revision, timeout=_SECONDS
        )
        assert info.sha is not None, "the Hub names the commit of a revision"
        return str(info.sha)

    return asking(place, "", ask)


@cache
def _files(place: HubUri, hub: str, folder: str) -> dict[str, HubFile]:
    kept = Path(folder) / "kindling-listings" / f"{place.kind}--{place.name.replace('/', '--')}--{place.revision}.json"
    with suppress(OSError, ValueError, TypeError):
        return {path: HubFile(**file) for path, file in json.loads(kept.read_bytes()).items()}
    files = asking(place, "", lambda: _listed(place, hub))
    with suppress(StorageError):  # a cache may be there to be read alone
        write_atomically(kept, json.dumps({path: asdict(file) for path, file in files.items()}).encode())
    return files


def _listed(place: HubUri, hub: str) -> dict[str, HubFile]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    tree = HfApi(endpoint=hub).list_repo_tree(place.name, repo_type=place.kind, revision=place.revision, recursive=True)
    return {
        file.path: HubFile(file.size, file.blob_id, None if file.lfs is None else file.lfs.sha256)
        for file in tree
        if isinstance(file, RepoFile)
    }
