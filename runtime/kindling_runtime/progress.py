"""Where a process says how far it is: one small file, replaced in one step, and at last its final word."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from kindling_api.bounds import FINAL_PROGRESS_BYTES, PROGRESS_MESSAGE, clip
from kindling_api.v1alpha1.runfile import Progress
from kindling_storage.atomic import TEMPORARY_PREFIX, local_errors
from kindling_storage.outage import outage


class Writer(Protocol):
    """Where progress documents go."""

    latest: Progress
    """The last one that came."""

    def write(self, progress: Progress, force: bool = False) -> None:
        """One document; the last word, and what is forced, goes at once, others when it is time for one."""


INTERVAL_SECONDS = 0.5
_CANNOT_RENAME = {errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS}


class ProgressWriter:
    """Writes progress documents to a file, at most every half second; without a file it writes nothing."""

    def __init__(self, path: Path | None, *, last_word_only: bool = False) -> None:
        """With `last_word_only` the file gets that alone, as a pod's termination message should."""
        self._path = path
        self._last_word_only = last_word_only
        self._next = 0.0  # on the monotonic clock
        self.latest = Progress()
        """What was to be written last."""

    def write(self, progress: Progress, force: bool = False) -> None:
        """Replace the document. The last word, and what is forced, is written at once.

        Raises:
            StorageError: the file cannot be written.
        """
        now = time.monotonic()
        final = progress.state != "Running"
        self.latest = progress
        if self._path is None or (not final and (self._last_word_only or (now < self._next and not force))):
            return
        self._next = now + INTERVAL_SECONDS
        _replace(self._path, final_bytes(progress) if final else to_bytes(progress))


def with_outage(progress: Progress) -> Progress:
    """The document, saying so if this process waits for a store."""
    waiting = outage()
    if not waiting or progress.state != "Running":
        return progress
    message = clip(f"{waiting}; {progress.message}", PROGRESS_MESSAGE)
    return progress.model_copy(update={"trouble": "StorageUnreachable", "message": message})


def to_bytes(progress: Progress) -> bytes:
    """The document as JSON; a figure that is not a number is left out, for JSON has none."""
    return progress.model_dump_json(by_alias=True, exclude_none=True).encode()


def final_bytes(progress: Progress) -> bytes:
    """The last word as JSON of at most FINAL_PROGRESS_BYTES: sentences are clipped, then figures left out."""
    bare = progress.model_copy(update={"dataset": None, "training": None, "stragglers": None, "incidents": None})
    barest = bare.model_copy(update={"checkpoint": None})
    for document, characters in (
        (progress, PROGRESS_MESSAGE),
        (progress, 512),
        (bare, 512),
        (barest, 256),
        (barest, 64),
    ):
        data = to_bytes(_clipped(document, characters))
        if len(data) <= FINAL_PROGRESS_BYTES:
            break
    return data


def _clipped(progress: Progress, characters: int) -> Progress:
    failure = progress.failure
    if failure is not None:
        failure = failure.model_copy(update={"message": clip(failure.message, characters)})
    return progress.model_copy(update={"message": clip(progress.message, characters), "failure": failure})


def _replace(path: Path, data: bytes) -> None:
    """Write by renaming; in place where that cannot be, as for a pod's termination message, which is a mount."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}")
    with local_errors(path, needed=len(data)):
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            if error.errno not in _CANNOT_RENAME:
                raise
            path.write_bytes(data)
