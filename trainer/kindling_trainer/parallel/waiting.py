"""How long this process waits for others.

A step is one process's own work and waiting for others, in every collective: all of them take the same time for it, and
only without the waiting does it show who is slow. On the CPU, whoever waits for a collective is in one of two calls of
PyTorch's: `Work.wait`, where the collectives of c10d end that were not asked to be asynchronous (FSDP2's, a pipeline's
transfers), or `wait_tensor`, which the functional ones of DTensor (tensor parallelism, the norm) end in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import _functional_collectives

_CALLS = ((dist.Work, "wait"), (_functional_collectives, "wait_tensor"))


class Waits:
    """Counts what one thread waits; others, such as the one that writes checkpoints, have groups of their own."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """So far."""
        self._thread: int | None = None
        self._calls = [(where, name, getattr(where, name)) for where, name in _CALLS]
        self._timed = [(where, name, self._time(call)) for where, name, call in self._calls]

    @contextmanager
    def counted(self) -> Iterator[None]:
        """What this thread waits while the block lasts is counted."""
        self._thread = threading.get_ident()
        _put(self._timed)
        try:
            yield
        finally:
            _put(self._calls)

    def _time(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            if torch.compiler.is_compiling() or threading.get_ident() != self._thread:
                return call(*arguments, **options)
            began = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - began

        return timed


def _put(calls: Iterable[tuple[Any, str, Callable[..., Any]]]) -> None:
    for where, name, call in calls:
        setattr(where, name, call)
