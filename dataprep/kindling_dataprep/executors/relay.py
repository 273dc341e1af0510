"""Progress documents as lines of a log: how the driver of a Ray job reaches those who can read its log only."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from contextlib import suppress

from pydantic import ValidationError

from kindling_api.v1alpha1.runfile import Progress
from kindling_runtime.progress import final_bytes, to_bytes, with_outage

INTERVAL_SECONDS = 10.0
"""A long build writes some megabytes in all."""

_MARK = "kindling-progress: "


class LogWriter:
    """Writes progress documents to standard output, a line each: the newest every ten seconds, if there is news."""

    def __init__(self) -> None:
        self.latest = Progress()
        self._said = _line(self.latest)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._keep_saying, name="kindling-progress", daemon=True).start()

    def write(self, progress: Progress, force: bool = False) -> None:
        """To be said when it is time. The last word, and what is forced, is said at once."""
        self.latest = progress
        if progress.state != "Running":
            self._ended.set()
        if force or self._ended.is_set():
            self._say()

    def _keep_saying(self) -> None:
        while not self._ended.wait(INTERVAL_SECONDS):
            self._say()

    def _say(self) -> None:
        with self._lock:
            if (line := _line(self.latest)) != self._said:
                sys.stdout.write(line)
                sys.stdout.flush()
                self._said = line


def _line(progress: Progress) -> str:
    data = to_bytes(with_outage(progress)) if progress.state == "Running" else final_bytes(progress)
    return f"{_MARK}{data.decode()}\n"


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
