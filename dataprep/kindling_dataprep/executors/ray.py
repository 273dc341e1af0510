"""Ray, started inside this process and gone with it.

Tasks name files to read and write, so only small arrays and records pass through Ray's object store. A task that dies
with its worker is done again by Ray; since parts are put whole and tasks are deterministic, that changes nothing.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

FOLDER_PREFIX = "kindling-ray-"
OBJECT_STORE_BYTES = 96 << 20
"""Little above Ray's least: nothing large passes through it."""
LONGEST_FOLDER = 40
"""Characters; Ray puts sockets some 65 characters further down, and a socket's path may have 107."""

Task = TypeVar("Task")
Result = TypeVar("Result")

# Read by Ray when it is imported, and by the processes that it starts: report nothing to anyone, warn of no GPU.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class RayExecutor:
    """Does tasks on the workers of the Ray that runs in this process."""

    def __init__(self, ray: Any, workers: int) -> None:
        self._ray = ray
        self.workers = workers

    def each(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """The results of `work(task)`, in the order in which they are ready; twice as many under way as workers."""
        remote = self._ray.remote(num_cpus=1, max_retries=3)(_do)
        waiting = list(reversed(tasks))
        under_way: list[Any] = []
        while waiting or under_way:
            while waiting and len(under_way) < 2 * self.workers:
                under_way.append(remote.remote(work, waiting.pop()))
            ready, under_way = self._ray.wait(under_way, timeout=0.5)  # short, so that signals are seen
            for reference in ready:
                yield self._result(reference)

    def _result(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None  # what `work` raised, as if it had been called here


def _do(work: Callable[[Task], Result], task: Task) -> Result:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a worker is one core
    return work(task)


@contextmanager
def ray_executor(workers: int) -> Iterator[RayExecutor]:
    """Starts Ray with `workers` cores, and stops it.

    When this process is killed, the kernel ends Ray's servers with it, the workers follow, and Ray's agents within some
    eighty seconds (they first wait for an answer from the dead server).
    """
    os.environ.update(_SETTINGS)
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # other users of the machine can reach Ray's ports
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray
    import ray.exceptions

    folder = _new_folder()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(
            address="local",
            num_cpus=workers,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
        )
        for number, handler in handlers.items():  # Ray replaces that of SIGTERM
            signal.signal(number, handler)
        yield RayExecutor(ray, workers)
    except SystemError as error:
        # What a signal handler raises while Ray's C++ code runs comes out as the cause of one of these.
        raise error.__cause__ or error from None
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _new_folder() -> Path:
    """A folder named by this process; those of processes that were killed are swept."""
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > LONGEST_FOLDER - len(FOLDER_PREFIX) - 8:
        parent = Path("/tmp")
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        with suppress(ValueError):
            if not Path(f"/proc/{int(folder.name.removeprefix(FOLDER_PREFIX))}").exists():
                shutil.rmtree(folder, ignore_errors=True)
    folder = parent / f"{FOLDER_PREFIX}{os.getpid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
