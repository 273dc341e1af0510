"""Asked to stop, a run saves what it has and leaves within seconds."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType

from kindling_api.errors import EXIT_SIGNALLED

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


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
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request
        sys.exit(EXIT_SIGNALLED + signal.SIGKILL)


class Stopped(Exception):
    """All processes of the run leave the loop, at the same step."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number
