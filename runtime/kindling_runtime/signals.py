"""Signals: that this process is asked to stop, and that it ends with the one that started it."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from kindling_api.errors import EXIT_SIGNALLED
from kindling_runtime.prctl import signal_at_death_of_parent


class Stopped(BaseException):
    """This process was asked to end by a signal; what is done is kept."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)


class StopFlag:
    """Remembers that SIGTERM or SIGINT came. Before `defer` is called they end the process at once."""

    def __init__(self) -> None:
        self.signal = 0
        self._deferred = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)

    def defer(self) -> None:
        """From now on there is something to save."""
        self._deferred = True

    def _received(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        if not self._deferred:
            sys.exit(EXIT_SIGNALLED + number)


def die_with(parent: int) -> None:
    """End this process when its parent dies, however that happens: nobody else would watch over it."""
    signal_at_death_of_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request
        sys.exit(EXIT_SIGNALLED + signal.SIGKILL)
