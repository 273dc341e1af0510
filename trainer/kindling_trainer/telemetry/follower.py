"""`python -m kindling_trainer.telemetry.follower RUNFILE`: sends the rows of a run's curves to its tracker.

A process of its own beside the training, which it only reads from: metrics.jsonl in the run's folder, as it grows. It
ends when its standard input does: after END with all that is there sent, else at once, for whoever started it is gone.

Each row has a number, which grows and is the same whenever the row is written anew, as after a kill: so each is sent
once. The number of the newest is kept in the run's folder.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import gettempdir

from kindling_api import logs
from kindling_api.base import Status
from kindling_api.v1alpha1.products import MANIFEST, model_folder
from kindling_api.v1alpha1.runfile import DatasetBuildFile, read_run_file
from kindling_runtime.exit import about_run
from kindling_storage import ObjectStore, open_store
from kindling_trainer.data.inputs import TrainingRun
from kindling_trainer.telemetry.metrics import METRICS, Row, rows_of
from kindling_trainer.telemetry.trackers import TrackerClient, open_tracker, take_key

END = b"end"
SENT = "tracking.json"
LOCAL_SECONDS, STORE_SECONDS = 2.0, 30.0
"""Between two looks at the curves: on this machine, where each step is seen, and in a store, where checkpoints are."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a tracker that failed is asked again; each pause is twice the one before."""
_STEPS, _PLACES = 10**9, 16
"""More than a run has steps, and places for the rows of one."""
_TRAINED, _EVALUATED, _FINAL = 13, 14, 15

log = logging.getLogger(__name__)


class SentRows(Status):
    """What has arrived."""

    newest: int = -1
    """The number of the newest row."""


def numbered(rows: Iterable[Row]) -> Iterator[tuple[int, Row]]:
    """Rows with their numbers; each has a time, of the newest row before it where it has none of its own.

    Numbers follow steps, and in a step what was left out, trained, evaluated. After the run went back to a checkpoint,
    its steps come again as others: they follow all before.
    """
    times_back, when, left_out = 0, 0.0, Counter[tuple[int, int]]()
    for row in rows:
        step, when = row["step"], row.get("time", when)
        if "skipped" in row:
            place = min(left_out[times_back, step], _TRAINED - 1)
            left_out[times_back, step] += 1
        else:
            place = _TRAINED if "loss" in row else _FINAL if "final" in row else _EVALUATED
        yield (times_back * _STEPS + step) * _PLACES + place, {**row, "time": when}
        times_back += row.get("rolled_back_to") is not None


class Follower:
    """What has been sent of a run, and its tracker while that answers."""

    def __init__(self, run: TrainingRun, store: ObjectStore) -> None:
        """`store` is the run's folder."""
        self._run, self._store = run, store
        self._local = store.local_path(METRICS)
        self._newest: int | None = None
        self._tracker: TrackerClient | None = None

    def follow(self, ended: threading.Event) -> None:
        """Send what comes until `ended` is set, and then the rest."""
        pause = FIRST_PAUSE
        while True:
            is_last = ended.is_set()
            try:
                some = self._send()
                if is_last and not some:
                    return self._close()
            except Exception as error:  # whatever the client raises, and a store that is away: both are waited for
                log.warning("the tracker is asked again in %.0f s: %s", pause, str(error) or type(error).__name__)
                self._tracker = None
                self._wait(ended, is_last, pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                pause = FIRST_PAUSE
                if not some and not is_last:
                    ended.wait(STORE_SECONDS if self._local is None else LOCAL_SECONDS)

    def _send(self) -> bool:
        """Send what there is; whether there was any."""
        if self._newest is None:
            self._newest = self._noted()
        rows = self._rows(self._newest)
        if rows and self._tracker is None:
            folder = Path(gettempdir()) if self._local is None else self._local.parent
            self._tracker = open_tracker(self._run, folder)
            self._newest = self._tracker.begin(self._newest)
            rows = self._rows(self._newest)
        if rows and self._tracker is not None:
            self._tracker.send(rows)
            self._newest = rows[-1][0]
            if self._tracker.acknowledges:
                self._note(self._newest)
        return bool(rows)

    def _close(self) -> None:
        if self._tracker is not None and self._newest is not None:
            self._tracker.close(finished=self._store.exists(MANIFEST))
            self._note(self._newest)

    def _rows(self, newest: int) -> list[tuple[int, Row]]:
        """The rows after the one of that number."""
        text = self._store.get(METRICS).decode() if self._store.exists(METRICS) else ""
        return [(number, row) for number, row in numbered(rows_of(text)) if number > newest]

    def _noted(self) -> int:
        return (
            SentRows.model_validate_json(self._store.get(SENT)).newest
            if self._store.exists(SENT)
            else SentRows().newest
        )

    def _note(self, newest: int) -> None:
        self._store.put(SENT, SentRows(newest=newest).model_dump_json(by_alias=True).encode())

    @staticmethod
    def _wait(ended: threading.Event, is_last: bool, seconds: float) -> None:
        time.sleep(seconds) if is_last else ended.wait(seconds)


def _await_end(ended: threading.Event) -> None:
    """Read standard input to its end."""
    if sys.stdin.buffer.read() != END:
        os._exit(1)
    ended.set()


def main() -> int:
    """Follow the run of a run file."""
    parser = argparse.ArgumentParser(prog="python -m kindling_trainer.telemetry.follower", description=__doc__)
    parser.add_argument("run_file", type=Path)
    logs.add_option(parser)
    options = parser.parse_args()
    logs.set_up(options.log)
    run = read_run_file(options.run_file)
    assert not isinstance(run, DatasetBuildFile) and run.spec.tracking is not None, "a run that asks for a tracker"
    about_run(run)
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for whoever started this
        signal.signal(number, signal.SIG_IGN)
    take_key(run.spec.tracking)
    ended = threading.Event()
    threading.Thread(target=_await_end, args=(ended,), daemon=True).start()
    Follower(run, open_store(run.output).child(model_folder(run.key))).follow(ended)
    return 0


if __name__ == "__main__":
    sys.exit(main())
