"""How the processes of a run find one another, over one machine or several.

The first listens at MASTER_ADDR:MASTER_PORT and the others come to it. In a cluster its name resolves only once its pod
exists, any process may come minutes after another, and the address may have become that of another run's pod: the first
says whose it is, and nobody joins who was not started with it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import DistStoreError, TCPStore  # type: ignore[attr-defined]

from kindling_runtime.failure import LostContactError

MASTER_SECONDS = 300.0
"""How long the first process is waited for."""
POLL_SECONDS = 0.2
CONNECT_SECONDS = 5.0

_HERE, _WHOSE = "kindling/here", "kindling/whose"
"""The keys under which processes are counted, and under which the first says to which attempt it belongs."""

OnArrival = Callable[[int, int], None]
"""Is told, several times a second, how many processes have come, and how many are to come in all."""


def rendezvous(backend: str, waiting: OnArrival, attempt: str = "") -> None:
    """Start the default process group, once all processes are there.

    The first process waits for the others as long as that takes; whoever starts them knows why they do not come.

    Args:
        attempt: what no other attempt at any run is called; the same for all of its processes.

    Raises:
        LostContactError: the first process does not answer.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True):  # torchrun itself listens there
        dist.init_process_group(backend)
        return
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = _listen(host, port, processes, attempt) if rank == 0 else meet(host, port, processes, attempt)
    here = store.add(_HERE, 1)
    while here < processes:
        waiting(here, processes)
        time.sleep(POLL_SECONDS)
        here = store.add(_HERE, 0)
    dist.init_process_group(backend, store=store, rank=rank, world_size=processes)


def _listen(host: str, port: int, processes: int, attempt: str) -> TCPStore:
    timeout = timedelta(seconds=MASTER_SECONDS)
    store = TCPStore(host, port, processes, is_master=True, timeout=timeout, wait_for_workers=False)
    store.set(_WHOSE, attempt)
    return store


def meet(host: str, port: int, processes: int, attempt: str, limit: float = MASTER_SECONDS) -> TCPStore:
    """The store of the first process, once it is that of this attempt which listens.

    Raises:
        LostContactError: it is not within `limit` seconds.
    """
    until, timeout = time.monotonic() + limit, timedelta(seconds=MASTER_SECONDS)
    while True:
        await_master(host, port, until - time.monotonic())
        store = TCPStore(host, port, processes, is_master=False, timeout=timeout, wait_for_workers=False)
        found = _whose(store)
        if found == attempt:
            return store
        del store  # and with it the connection
        if time.monotonic() > until:
            raise LostContactError(
                f"at {host}:{port} there is the first process of {found or 'something else'}, not of {attempt}; "
                "see why its own pod, the one with index 0, has not started"
            )
        time.sleep(POLL_SECONDS)


def _whose(store: TCPStore) -> str:
    """The attempt that a first process belongs to; empty where it does not say."""
    try:
        store.wait([_WHOSE], timedelta(seconds=CONNECT_SECONDS))
        return str(store.get(_WHOSE).decode())
    except DistStoreError:
        return ""


def await_master(host: str, port: int, limit: float = MASTER_SECONDS) -> None:
    """Return as soon as the first process listens.

    Raises:
        LostContactError: it does not within `limit` seconds.
    """
    until = time.monotonic() + limit
    while True:
        try:
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                why = "its name does not resolve" if isinstance(error, socket.gaierror) else str(error).lower()
                raise LostContactError(
                    f"the first process of the run, at {host}:{port}, did not answer for {limit:.0f} s ({why}); "
                    "see why its pod, the one with index 0, has not started"
                ) from error
        time.sleep(POLL_SECONDS)
