"""A lease in S3: an object that its holder keeps renewing, and that others may take over once it is old.

Every write is conditional on the version last seen, so that of two that want the lease one gets it. Its age is the
difference of two times stated by the server, so that no clock of ours enters. See Gray and Cheriton, "Leases: an
efficient fault-tolerant mechanism for distributed file cache consistency" (SOSP 1989).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kindling_api.base import canonical_json
from kindling_api.errors import StorageError
from kindling_storage.holder import Holder, conflict, holder, read_holder, supersedes
from kindling_storage.s3.bucket import Bucket, Versioned
from kindling_storage.s3.store import S3Store

SECONDS = 30.0
"""How long a lease lives without renewal; it is renewed three times as often."""

RELEASE_SECONDS = 5.0
"""How long a renewal under way may delay the release: a server that does not answer must not keep a process alive."""

_log = logging.getLogger(__name__)


@contextmanager
def lease(store: S3Store, path: str, me: Holder | None = None, *, seconds: float = SECONDS) -> Iterator[Lease]:
    """Hold the lease at `path` while the block runs.

    A lease that was renewed less than `seconds` ago may be a dead process's: this waits until it expires, or is
    renewed; unless it is that of an older attempt at the same run, which is taken over at once.

    A lease that its holder cannot renew, since the server does not answer, is not given up: nobody else can take it
    meanwhile, either, and whether somebody has, at last, is asked before each commit (`lock.confirm`).

    Raises:
        ConflictError: its holder is alive.
        StorageError: the server cannot be reached, refuses, or has no conditional writes.
    """
    held = Lease(store.bucket, store.key(path), me or holder(), seconds)
    held.acquire(place=store.uri)
    try:
        yield held
    finally:
        held.release()


def holder_of(store: S3Store, path: str) -> Holder | None:
    """Who has the lease, as far as one look can tell: a dead holder's counts until it expires."""
    found = store.bucket.read(store.key(path))
    return None if found is None or _is_free(found) else read_holder(found.data)


class Lease:
    """See `lease`."""

    def __init__(self, bucket: Bucket, key: str, me: Holder, seconds: float) -> None:
        self._bucket = bucket
        self._key = key
        self._seconds = seconds
        self._holder = me
        self._renewals = 0
        self._etag = ""
        self._taken_by: bytes | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name="kindling-lease", daemon=True)

    def acquire(self, *, place: str) -> None:
        """Take the lease and keep it, or raise; see `lease`."""
        seen: Versioned | None = None
        while True:
            found = self._bucket.read(self._key)
            if found is None or _is_free(found) or supersedes(self._holder, read_holder(found.data)):
                if self._write(match=found.etag if found else None):
                    break
                continue  # another was faster
            if seen is not None and found.etag != seen.etag:
                raise conflict(place, found.data)
            if seen is None:
                _log.info("%s is locked; waiting up to %.0f s to see whether its holder is alive", place, self._seconds)
            seen = found
            time.sleep(self._seconds / 10)
        self._thread.start()

    @property
    def token(self) -> str:
        """See `Lock.token`."""
        token: str = self._holder["token"]
        return token

    def check(self) -> None:
        """Raise ConflictError where a renewal has met another holder; see `Lock.check`."""
        if self._taken_by is not None:
            raise conflict(f"s3://{self._bucket.name}/{self._key}", self._taken_by)

    def release(self) -> None:
        """Let others have it at once; where that fails it expires by itself."""
        self._ended.set()
        self._thread.join(RELEASE_SECONDS)
        if self._taken_by is None and not self._thread.is_alive():
            try:
                self._write(match=self._etag, free=True)
            except StorageError as error:
                _log.warning("the lease could not be given back, and will expire: %s", error)

    def _keep_renewing(self) -> None:
        while not self._ended.wait(self._seconds / 3):
            try:
                if not self._write(match=self._etag) and not self._recovered():
                    return
            except StorageError as error:
                _log.warning("the lease could not be renewed: %s", error)

    def _write(self, *, match: str | None, free: bool = False) -> bool:
        """Write the lease if its version is still `match`; whether it was."""
        self._renewals += 1
        document = {**self._holder, "seconds": self._seconds, "renewals": self._renewals, "free": free}
        etag = self._bucket.put_if(self._key, canonical_json(document), match=match)
        if etag is None:
            return False
        self._etag = etag
        return True

    def _recovered(self) -> bool:
        """Whether a refused renewal had in truth been written, and only its answer was lost."""
        found = self._bucket.read(self._key)
        if found is not None and read_holder(found.data).get("token") == self.token:
            self._etag = found.etag
            return True
        self._taken_by = found.data if found is not None else b""
        return False


def _is_free(found: Versioned) -> bool:
    document = read_holder(found.data)
    seconds = document.get("seconds")
    return document.get("free") is True or found.age > (seconds if isinstance(seconds, int | float) else SECONDS)
