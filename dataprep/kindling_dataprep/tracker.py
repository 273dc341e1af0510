"""How far the build is, for people and for whoever started it."""

from __future__ import annotations

import logging
import time

from kindling_api.logs import say
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import DatasetProgress
from kindling_runtime.progress import Writer

SHARE = {
    "lines": 16,
    "reading": 40,
    "deduplicating": 10,
    "toxicity": 2,
    "decontaminating": 2,
    "pii": 2,
    "tokenizer": 8,
    "encoding": 14,
    "writing": 6,
}
"""The stages in their order, and the share of each in the time, in percent, as bench/dataprep_corpus.py shows it."""

SURE_ENOUGH = 5.0
"""Percent; before that, the time left is not guessed."""

LOG_SECONDS = 10.0
"""At most so often the log says how far a stage is."""

log = logging.getLogger(__name__)


class Tracker:
    """Counts tasks, documents and bytes, and says so in progress documents and in the log."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._started = time.monotonic()
        self.seconds: dict[str, float] = {}
        """How long each stage took, or has taken so far."""
        self._stage, self._message, self._tasks = "", "", 1
        self._done, self._documents, self._bytes, self._since = 0, 0, 0, self._started
        self._next_line = 0.0  # on the monotonic clock

    def stage(self, name: str, message: str, tasks: int) -> None:
        """Stage `name` of SHARE begins; it has `tasks` tasks."""
        self._end_stage()
        self._stage, self._message, self._tasks = name, message, max(tasks, 1)
        self._done, self._documents, self._bytes, self._since = 0, 0, 0, time.monotonic()
        self._say(message)
        self._write(force=True)

    def advance(self, documents: int, written: int = 0) -> None:
        """One more task of the stage is done; it had so many documents, and left files of so many bytes."""
        self._done += 1
        self._documents += documents
        self._bytes += written
        self._write()
        if time.monotonic() > self._next_line:
            megabytes = f", {self._bytes / 1e6:,.1f} MB written" if self._bytes else ""
            done = f"{self._done} of {self._tasks} tasks, {self._documents:,} documents{megabytes}"
            self._say(f"{self._stage}: {done}")

    def finish(self) -> None:
        """The last stage is over."""
        self._end_stage()

    def _say(self, sentence: str) -> None:
        self._next_line = time.monotonic() + LOG_SECONDS
        say(
            log, sentence, stage=self._stage, done=self._done, tasks=self._tasks, documents=self._documents,
            bytes=self._bytes,
        )  # fmt: skip

    def _end_stage(self) -> None:
        if self._stage:
            self.seconds[self._stage] = time.monotonic() - self._since

    def _write(self, force: bool = False) -> None:
        now = time.monotonic()
        names = list(SHARE)
        before = sum(SHARE[name] for name in names[: names.index(self._stage)])
        percent = before + SHARE[self._stage] * min(self._done / self._tasks, 1.0)
        eta = None
        if percent > SURE_ENOUGH:
            eta = round((now - self._started) * (100 - percent) / percent)
        progress = DatasetProgress(
            stage=self._stage,
            percent=round(percent, 1),
            documents=self._documents,
            documents_per_second=round(self._documents / max(now - self._since, 1e-3), 1),
            eta_seconds=eta,
        )
        self._writer.write(Progress(message=self._message, dataset=progress), force)
