"""Progress documents as lines of a log: how the driver of a Ray job reaches those who can read its log only."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import suppress

from pydantic import ValidationError

from kindling_api.v1alpha1.runfile import Progress
from kindling_storage.progress import final_bytes, to_bytes

INTERVAL_SECONDS = 10.0
"""A long build writes some megabytes in all."""

_MARK = "kindling-progress: "


class LogWriter:
    """Writes progress documents to standard output, a line each, at most every ten seconds."""

    def __init__(self) -> None:
        self._next = 0.0  # on the monotonic clock
        self.latest = Progress()

    def write(self, progress: Progress, force: bool = False) -> None:
        """One line. The last word, and what is forced, is written at once."""
        now = time.monotonic()
        final = progress.state != "Running"
        self.latest = progress
        if now < self._next and not force and not final:
            return
        self._next = now + INTERVAL_SECONDS
        data = final_bytes(progress) if final else to_bytes(progress)
        sys.stdout.write(f"{_MARK}{data.decode()}\n")
        sys.stdout.flush()


def split(lines: Iterable[str]) -> tuple[Progress | None, list[str]]:
    """The newest progress document in lines of a log, and the lines that are for people."""
    newest, others = None, []
    for line in lines:
        marked = line.startswith(_MARK)
        if marked:
            with suppress(ValidationError):  # half a line of a process that was killed while it wrote
                newest = Progress.model_validate_json(line.removeprefix(_MARK))
        else:
            others.append(line)
    return newest, others
