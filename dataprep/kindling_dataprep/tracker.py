"""How far the build is, for people and for whoever started it."""

from __future__ import annotations

import sys
import time
from typing import Protocol

from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import DatasetProgress

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


class Writer(Protocol):
    """Where progress documents go."""

    latest: Progress
    """The last one that came."""

    def write(self, progress: Progress, force: bool = False) -> None:
        """One document; the last word, and what is forced, goes at once, others when it is time for one."""


class Tracker:
    """Counts tasks and documents, and writes progress documents."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._started = time.monotonic()
        self.seconds: dict[str, float] = {}
        """How long each stage took, or has taken so far."""
        self._stage, self._message, self._tasks = "", "", 1
        self._done, self._documents, self._since = 0, 0, self._started

    def stage(self, name: str, message: str, tasks: int) -> None:
        """Stage `name` of SHARE begins; it has `tasks` tasks."""
        self._end_stage()
        self._stage, self._message, self._tasks = name, message, max(tasks, 1)
        self._done, self._documents, self._since = 0, 0, time.monotonic()
        print(message, file=sys.stderr, flush=True)
        self._write(force=True)

    def advance(self, documents: int) -> None:
        """One more task of the stage is done; it had so many documents."""
        self._done += 1
        self._documents += documents
        self._write()

    def finish(self) -> None:
        """The last stage is over."""
        self._end_stage()

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
