"""A queue of keys: one worker at a key, a key once in the queue, failures later and later, and a date to look again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from kindling_operator.cluster import ClusterError, NotWritableError

Key = TypeVar("Key", bound=Hashable)

FIRST_BACKOFF, LONGEST_BACKOFF = 0.2, 60.0
"""Seconds after a first failure, doubled with each further one, and the ceiling."""

log = logging.getLogger(__name__)


class Queue(Generic[Key]):
    """Keys whose turn it is, whatever the cause: what is to be done is found out by `work`.

    A key that is added while it waits is not added again; one that is added while it is worked on comes once more
    afterwards. A failure is logged and repeated after a growing delay with jitter; adding the key brings it forward.
    """

    def __init__(self, work: Callable[[Key], Awaitable[float | None]], *, workers: int) -> None:
        """`work` returns after how many seconds it wants to see the key again, if at all."""
        self._work = work
        self._workers = workers
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._requeued: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._moved = 0.0
        self.errors = 0
        """Failures so far."""

    def add(self, key: Key) -> None:
        """The key's turn is now."""
        self._forget_timer(key)
        if key in self._working:
            self._requeued.add(key)
        elif key not in self._waiting:
            if not self._waiting and not self._working:
                self._moved = _now()
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """The key's turn comes in so many seconds, or sooner if it was to come sooner anyway."""
        timer = self._timers.get(key)
        if timer is None or _now() + seconds < timer.when():
            self._forget_timer(key)
            self._timers[key] = asyncio.get_running_loop().call_later(seconds, self.add, key)

    async def run(self) -> None:
        """Work until cancelled, or until a write was refused because this process does not lead any more."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._worker())

    def __len__(self) -> int:
        """Keys whose turn it is and that nobody works on yet."""
        return len(self._waiting)

    def stuck_seconds(self) -> float:
        """For how long nothing has been finished, although there is something to do."""
        return _now() - self._moved if self._waiting or self._working else 0.0

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._working.add(key)
            try:
                after = await self._work(key)
                self._failures.pop(key, None)
            except NotWritableError:
                raise
            except Exception as error:
                after = self._backoff(key)
                expected = isinstance(error, ClusterError)
                log.warning("%s: %s; again in %.1f s", key, error, after, exc_info=None if expected else error)
            self._finish(key, after)

    def _backoff(self, key: Key) -> float:
        self.errors += 1
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return min(FIRST_BACKOFF * 2.0 ** min(failures - 1, 16), LONGEST_BACKOFF) * random.uniform(0.8, 1.2)

    def _finish(self, key: Key, after: float | None) -> None:
        self._working.discard(key)
        self._moved = _now()
        if key in self._requeued:  # not in a tight loop, though, however often a failing key is added
            self._requeued.discard(key)
            after = FIRST_BACKOFF if key in self._failures else 0.0
        if after is not None:
            self.add_after(key, after)

    def _forget_timer(self, key: Key) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()


def _now() -> float:
    return asyncio.get_running_loop().time()
