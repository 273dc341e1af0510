"""What this process asks of the kernel for itself, by prctl(2); on other systems than Linux nothing happens."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 4, 15, 36  # linux/prctl.h
_LIBC = ctypes.CDLL(None)  # loaded here, so that a process that has just been forked only calls


def signal_at_death_of_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent is gone, even by kill -9."""
    _prctl(_PR_SET_PDEATHSIG, number)


def hide() -> None:
    """Keep memory and environment from other processes of the same user; so it is for what is forked from this one, but
    not for another program that it executes."""
    _prctl(_PR_SET_DUMPABLE, 0)


def set_name(name: str) -> None:
    """What the kernel calls this process, of which it keeps 15 bytes."""
    _prctl(_PR_SET_NAME, name.encode())


def adopt_orphans() -> None:
    """Be the parent of descendants whose own is gone: their subreaper."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int | bytes) -> None:
    if sys.platform == "linux":
        _LIBC.prctl(option, value, 0, 0, 0)
