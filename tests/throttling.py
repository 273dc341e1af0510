"""A process that gets half of the time, as at a limit of CPU."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PERIOD_SECONDS = 0.1
"""That of Kubernetes' limits (kubelet, --cpu-cfs-quota-period)."""


@contextmanager
def throttled(pid: int) -> Iterator[None]:
    """While the block lasts, the process stands still for 50 of every 100 ms."""
    over = threading.Event()

    def throttle() -> None:
        while not over.is_set():
            for number in (signal.SIGSTOP, signal.SIGCONT):
                os.kill(pid, number)
                time.sleep(PERIOD_SECONDS / 2)

    thread = threading.Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
