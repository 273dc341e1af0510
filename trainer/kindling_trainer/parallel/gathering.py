"""How the processes of a run find one another, over one machine or several.

The first listens at MASTER_ADDR:MASTER_PORT and the others come to it. In a cluster its name resolves only once its pod
exists, and any process may come minutes after another.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from kindling_trainer.failure import LostContactError

MASTER_SECONDS = 300.0
"""How long the first process is waited for."""
POLL_SECONDS = 0.2
CONNECT_SECONDS = 5.0

_HERE = "kindling/here"
"""The key under which processes are counted."""

Waiting = Callable[[int, int], None]
"""Is told, several times a second, how many processes have come, and how many are to come in all."""


def gather(backend: str, waiting: Waiting) -> None:
    """Start the default process group, once all processes are there.

    The first process waits for the others as long as that takes; whoever starts them knows why they do not come.

    Raises:
        LostContactError: the first process does not answer.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True):  # torchrun itself listens there
        dist.init_process_group(backend)
        return
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if rank > 0:
        await_master(host, port)
    patience = timedelta(seconds=MASTER_SECONDS)
    store = TCPStore(host, port, processes, is_master=rank == 0, timeout=patience, wait_for_workers=False)
    here = store.add(_HERE, 1)
    while here < processes:
        waiting(here, processes)
        time.sleep(POLL_SECONDS)
        here = store.add(_HERE, 0)
    dist.init_process_group(backend, store=store, rank=rank, world_size=processes)


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
