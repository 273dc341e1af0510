"""Ray: started inside this process and gone with it, or the cluster that this process is a job of.

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
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from kindling_api.errors import KindlingError, explain

FOLDER_PREFIX = "kindling-ray-"
OBJECT_STORE_BYTES = 96 << 20
"""Little above Ray's least: nothing large passes through it."""
RETRIES = 3
"""Attempts at a task whose worker or node died, after the first."""
LONGEST_FOLDER = 40
"""Characters; Ray puts sockets some 65 characters further down, and a socket's path may have 107."""

Task = TypeVar("Task")
Result = TypeVar("Result")

# Read by Ray when it is imported, and by the processes that it starts: report nothing to anyone, warn of no GPU, and
# give up on a task that needs more memory than there is (Ray's default is to try it forever).
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_task_oom_retries": str(RETRIES),
}

# Also read when Ray is imported: without clusters, which is what this says on Linux too, this machine's address is
# 127.0.0.1, and Ray's servers listen there alone.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

# A server of this machine that is gone does not come back: nobody waits a minute for it, Ray's default.
_NO_RETURN = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}


class RayExecutor:
    """Does tasks on Ray's workers, each on one core, evenly over the nodes."""

    def __init__(self, ray: Any, workers: int | None = None) -> None:
        self._ray = ray
        self._workers = workers

    @property
    def workers(self) -> int:
        """How many cores there are now: as many as were started here; nodes of a cluster come and go."""
        return self._workers or int(self._ray.cluster_resources().get("CPU", 0))

    def each(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """The results of `work(task)`, in the order in which they are ready; twice as many under way as workers."""
        remote = self._ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(_do)
        waiting = list(reversed(tasks))
        under_way: list[Any] = []
        while waiting or under_way:
            while waiting and len(under_way) < max(2 * self.workers, 1):
                under_way.append(remote.remote(work, waiting.pop()))
            ready, under_way = self._ray.wait(under_way, timeout=0.5)  # short, so that signals are seen
            for reference in ready:
                yield self._result(reference)

    def _result(self, reference: Any) -> Any:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except exceptions.RayTaskError as error:
            raise error.cause from None  # what `work` raised, as if it had been called here
        except (exceptions.OutOfMemoryError, exceptions.WorkerCrashedError, exceptions.NodeDiedError) as error:
            raise _worker_lost(error, out_of_memory=isinstance(error, exceptions.OutOfMemoryError)) from error


def _do(work: Callable[[Task], Result], task: Task) -> Result:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a worker is one core
    return work(task)


def _worker_lost(error: Exception, *, out_of_memory: bool) -> Exception:
    """The error for a task whose worker died each time."""
    where, allowed = "spec.engine.resources.memory", "memory for 16 MiB of input, or one record, and what is made of it"
    remedy = "give more memory; finished parts are kept"
    if out_of_memory:
        return MemoryError(explain(where, found="too little for a task", allowed=allowed, remedy=remedy))
    said = str(error).splitlines()[0]
    found = f"a task whose worker died {RETRIES + 1} times, as the kernel does when memory runs out ({said})"
    return KindlingError(explain(where, found=found, allowed=allowed, remedy=remedy))


@contextmanager
def local_ray(workers: int) -> Iterator[RayExecutor]:
    """Starts Ray with `workers` cores on this machine's loopback interface, and stops it.

    When this process is killed, or ends by a signal, the kernel ends Ray's servers with it, the workers follow, and
    Ray's agents within some twenty seconds (they first wait for an answer from the dead server).
    """
    os.environ.update(_LOOPBACK | _NO_RETURN)
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # other users of the machine can reach Ray's ports
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    folder = _new_folder()
    try:
        with _connected(
            address="local",
            num_cpus=workers,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
        ) as executor:
            yield executor
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def joined_ray() -> AbstractContextManager[RayExecutor]:
    """Joins the cluster that this process runs in as a driver; the cluster stays."""
    return _connected(address="auto")


@contextmanager
def _connected(**options: Any) -> Iterator[RayExecutor]:
    """`ray.init` and `ray.shutdown`, without Ray's own signal handlers and logs.

    A signal, or a fault of Ray's own code, ends this process, and Ray's servers with it, so nothing is shut down: where
    the whole process group got the signal, the servers are gone, and Ray would look for them and then end this process
    itself.
    """
    os.environ.update(_SETTINGS)
    import ray
    import ray.exceptions

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        for number, handler in handlers.items():  # Ray replaces that of SIGTERM
            signal.signal(number, handler)
        yield RayExecutor(ray, options.get("num_cpus"))
    except SystemError as error:
        # What a signal handler raises while Ray's C++ code runs comes out as the cause of one of these.
        raise error.__cause__ or error from None
    except Exception:
        ray.shutdown()
        raise
    else:
        ray.shutdown()


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
