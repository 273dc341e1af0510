"""From what the Hub's library raises to errors that say what to change, and to what is worth another try."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from kindling_api.errors import (
    IntegrityError,
    KindlingError,
    NoRepositoryError,
    NotFoundError,
    RefusedError,
    StorageError,
    UnreachableError,
    explain,
)
from kindling_api.hub import ADDRESS, HubUri
from kindling_storage.outage import note_outage, note_recovery

log = logging.getLogger(__name__)

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further try."""
LONGEST_WAIT = 60.0
"""Seconds that are waited at most where the Hub says how long."""

MOST_DAMAGED = 2
"""Tries at a file that arrives damaged: it may be large."""

TOKEN = "HF_TOKEN (in a cluster: spec.huggingFace.tokenSecret)"
_PASSING = frozenset({408, 429, *range(500, 600)})
"""HTTP statuses that another try may not meet."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK = (*_FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG)

Answer = TypeVar("Answer")


def asking(place: HubUri, what: str, ask: Callable[[], Answer]) -> Answer:
    """What the Hub answers; an outage is waited for, and told.

    Args:
        what: that is asked for, such as a file's path; empty for the repository.

    Raises:
        NotFoundError, RefusedError: there is no such repository, revision or file, or not for this token.
        UnreachableError: the Hub does not answer, or cannot serve, after all tries.
        StorageError: the cache cannot be written.
    """
    where = f"{place}/{what}" if what else str(place)
    for attempt, wait in enumerate((*WAITS, None), 1):
        try:
            answer = ask()
        except Exception as error:
            met = error if isinstance(error, KindlingError) else _error(where, place, error)
            passes = isinstance(met, UnreachableError) or (isinstance(met, IntegrityError) and attempt < MOST_DAMAGED)
            if wait is None or not passes:
                note_recovery(endpoint())  # nobody waits any more
                raise met from error
            log.warning("%s", met)
            note_outage(endpoint(), type(met).__name__, f"waiting for the Hub: {met}")
            time.sleep(_wait_asked(error) or wait)
        else:
            note_recovery(endpoint())
            return answer
    raise AssertionError("the last try returns or raises")


def endpoint() -> str:
    """The Hub's address."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or ADDRESS


def _error(where: str, place: HubUri, error: Exception) -> StorageError | IntegrityError:
    from huggingface_hub import errors  # not above: a laptop without hf:// need not load it

    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, errors.GatedRepoError):
            remedy = f"accept its terms at {endpoint()}/{place.name}, and set {TOKEN} to a token of that account"
            return _refused(where, "a repository that one must ask for", remedy)
        if isinstance(cause, errors.RevisionNotFoundError):
            return _no_revision(where, place)
        if isinstance(cause, errors.RemoteEntryNotFoundError):
            return NotFoundError(explain(where, found="nothing", allowed="a file of it", remedy="check the path"))
        if isinstance(cause, errors.RepositoryNotFoundError):
            return _no_repository(where, place)
        if isinstance(cause, errors.OfflineModeIsEnabled):
            remedy = "unset HF_HUB_OFFLINE, or name a commit whose files are in the cache"
            return StorageError(explain(where, found="HF_HUB_OFFLINE", allowed="the Hub, or its cache", remedy=remedy))
        if isinstance(cause, errors.HfHubHTTPError):
            return _status_error(where, place, cause)
    return _other_error(where, causes)


def _other_error(where: str, causes: list[BaseException]) -> StorageError | IntegrityError:
    """What is no answer of the Hub: the disk, a file that is cut, the network."""
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in _DISK:
            return _disk(where, cause)
    for cause in causes:
        if "Consistency check failed" in str(cause):
            return damaged(where, str(cause).partition("\n")[0])
    if not any(isinstance(cause, OSError) or type(cause).__module__.startswith("httpx") for cause in causes):
        found, remedy = f"an answer that no Hub gives ({causes[0]!r:.200})", "check HF_ENDPOINT, proxy and network"
        return StorageError(explain(where, found=found, allowed="the Hub's answer", remedy=remedy))
    found = f"no answer from {endpoint()} ({type(causes[-1]).__name__}: {causes[-1]})"
    remedy = "check the network and HF_ENDPOINT, and run again: what has arrived is kept"
    return UnreachableError(explain(where, found=found, allowed="the Hub's answer", remedy=remedy))


def damaged(where: str, found: str) -> IntegrityError:
    """The error for a file that arrived otherwise than the Hub lists it."""
    remedy = "run again; if it stays, a proxy or a mirror changes it"
    return IntegrityError(explain(where, found=found, allowed="the file as the Hub lists it", remedy=remedy))


def _status_error(where: str, place: HubUri, error: Exception) -> StorageError:
    status = _status(error)
    if status in (401, 403):
        remedy = f"set {TOKEN} to a token that may do this, or take a wrong one away"
        return _refused(where, f"HTTP {status}: the token is refused, or there is none", remedy)
    if status == 404:
        return _no_repository(where, place)
    if status not in _PASSING:
        remedy = "check the URI, HF_ENDPOINT and the Hub's own page"
        return StorageError(explain(where, found=f"HTTP {status}", allowed="an answer of the Hub", remedy=remedy))
    remedy = "run again later: what has arrived is kept"
    if status == 429:
        remedy = f"run again later, or set {TOKEN}: more is allowed with a token than without"
    return UnreachableError(explain(where, found=f"HTTP {status}", allowed="the Hub's answer", remedy=remedy))


def _no_repository(where: str, place: HubUri) -> NoRepositoryError:
    found = f"no {place.kind} {place.name} at {endpoint()}, or none that this token may see"
    remedy = f"correct the name, or set {TOKEN} to a token that may read it"
    return NoRepositoryError(explain(where, found=found, allowed=f"a {place.kind} of the Hub", remedy=remedy))


def _no_revision(where: str, place: HubUri) -> NoRepositoryError:
    found = f"no revision {place.revision}"
    remedy = "correct it, or leave it out for main"
    if place.is_pinned:
        found += ", which may have been there before the repository was rewritten"
        remedy = "name one that is there; its files are others"
    allowed = f"a branch, tag or commit of {place.name}"
    return NoRepositoryError(explain(where, found=found, allowed=allowed, remedy=remedy))


def _refused(where: str, found: str, remedy: str) -> RefusedError:
    return RefusedError(explain(where, found=found, allowed="what the token may do", remedy=remedy))


def _disk(where: str, error: OSError) -> StorageError:
    folder = cache_folder()
    if error.errno in _FULL:
        remedy = "make room, or set HF_HOME to a folder on a larger disk; what has arrived is kept"
        return StorageError(explain(where, found=f"no room in {folder}", allowed="room for it", remedy=remedy))
    remedy = "set HF_HOME to a folder that can be written"
    return StorageError(explain(where, found=f"{error} in {folder}", allowed="a cache to write", remedy=remedy))


def cache_folder() -> str:
    """Where the Hub's library keeps what it has fetched."""
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    return os.path.expanduser(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub"))


def _wait_asked(error: Exception) -> float | None:
    for cause in _causes(error):
        with suppress(AttributeError, KeyError, ValueError):
            return min(LONGEST_WAIT, float(cause.response.headers["Retry-After"]))  # type: ignore[attr-defined]
    return None


def _status(error: Exception) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
