"""The process that shows a run's curves in a tracker, beside the training processes: checked for, started, ended."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kindling_trainer.launch.request import Request
from kindling_trainer.telemetry.follower import END
from kindling_trainer.telemetry.metrics import METRICS
from kindling_trainer.telemetry.trackers import check_client, check_server

PROGRAM = "kindling_trainer.telemetry.follower"
LAST_SECONDS, STOP_SECONDS = 60.0, 2.0
"""How long it may send what is left at the end of a run, and where the run is asked to stop."""
RESTART_SECONDS = 5.0
"""Before it is started again, should it end by itself."""

NETWORK_SECONDS = 30.0
"""In which a new pod has its network."""

log = logging.getLogger(__name__)


def check_tracker(request: Request) -> None:
    """Make sure, before anything is trained, that the run's tracker can be used; and, before its first start, that it
    answers: a run that goes on does so without.

    Raises:
        SpecError: its package is not installed, or nothing answers.
        RefusedError: there is no key.
    """
    tracking, where = request.run.spec.tracking, "spec.tracking"
    if tracking is None:
        return
    check_client(tracking, where)
    if not request.store.exists(METRICS):
        check_server(tracking, where, wait_seconds=NETWORK_SECONDS if request.managed else 0.0)


@contextmanager
def tracked(request: Request) -> Iterator[None]:
    """Show the run's curves while it trains, and at the end what is left of them."""
    if request.run.spec.tracking is None or not request.node.leads:
        yield
        return
    process = _Process(request)
    try:
        yield
    finally:
        process.end(STOP_SECONDS if request.asked else LAST_SECONDS)


class _Process:
    """It, started again where it ends by itself."""

    def __init__(self, request: Request) -> None:
        self._command = [sys.executable, "-m", PROGRAM, str(request.runfile), "--log", request.log]
        self._ending = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._watch, name="tracker", daemon=True)
        self._thread.start()

    def end(self, seconds: float) -> None:
        """Have it send the rest, for so long."""
        self._ending.set()
        with suppress(OSError):  # it may have ended
            assert self._process.stdin is not None
            self._process.stdin.write(END)
            self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            log.warning(
                "the tracker does not answer: it lacks rows of %s; run the same again, and they are sent", METRICS
            )
            self._process.kill()
            self._process.wait()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ending.is_set():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)
            if self._process.returncode is None or self._ending.is_set():
                continue
            log.warning("what sends to the tracker has ended (%d): it is started again", self._process.returncode)
            if not self._ending.wait(RESTART_SECONDS):
                self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdin=subprocess.PIPE)
