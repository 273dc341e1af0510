"""Who does the tasks: this process, or Ray's workers, here or on many nodes. Tasks and results are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

from kindling_dataprep.executors import limits
from kindling_dataprep.executors.local import LocalExecutor

Task = TypeVar("Task")
Result = TypeVar("Result")
Index = TypeVar("Index", int, tuple[str, int])

WORTH_STARTING_RAY = 32 << 20
"""Bytes of input from which Ray pays where nobody asks for workers. To start it, and to load the steps in each of its
workers, takes processor time (bench/dataprep/start_up.py) in which one core does as much as this."""
ENOUGH_FOR_WORKERS = 4 << 20
"""Bytes of input from which Ray is started where `spec.engine.workers` asks for several."""
RAY_BYTES = 1 << 30
"""Memory of Ray's own processes and of the driver."""
WORKER_BYTES = 512 << 20
"""Memory of a worker that does the largest tasks."""


class Executor(Protocol):
    """Does a list of tasks."""

    @property
    def workers(self) -> int:
        """How many tasks are done at once, now."""

    def each(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """The results of `work(task)`, in the order in which they are ready; raises what `work` raises."""


def collect(
    executor: Executor,
    work_on: Callable[[Task], tuple[Index, Result]],
    tasks: Sequence[Task],
    ready: Callable[[Result], object] = lambda result: None,
) -> list[tuple[Index, Result]]:
    """What the tasks give, each an index and a result, sorted by index; `ready` hears of each result as it comes."""
    found = {}
    for index, result in executor.each(work_on, tasks):
        found[index] = result
        ready(result)
    return [(index, found[index]) for index in sorted(found)]


def start(requested: int, tasks: int, input_bytes: int) -> AbstractContextManager[Executor]:
    """The executor for a build here: Ray, where more than one worker has enough to do.

    Args:
        requested: `spec.engine.workers`; 0 means as many as there are cores.
        tasks: Number of tasks that the inputs were cut into.
        input_bytes: Size of all inputs.
    """
    workers = workers_for(requested, tasks, input_bytes)
    if workers < 2:
        return nullcontext(LocalExecutor())
    from kindling_dataprep.executors.ray import local_ray  # not above: loading Ray takes a second

    return local_ray(workers)


def workers_for(requested: int, tasks: int, input_bytes: int) -> int:
    """How many tasks are done at once here; arguments as those of `start`."""
    if input_bytes < (ENOUGH_FOR_WORKERS if requested else WORTH_STARTING_RAY):
        return 1
    return worker_count(requested, tasks, limits.cores(), limits.memory_bytes())


def worker_count(requested: int, tasks: int, cores: int, memory_bytes: int) -> int:
    """Workers that have a task, a core and the memory each."""
    fit = (memory_bytes - RAY_BYTES) // WORKER_BYTES
    return min(requested or cores, cores, tasks, max(fit, 1))


def join() -> AbstractContextManager[Executor]:
    """The executor on the Ray cluster that this process is a job of."""
    from kindling_dataprep.executors.ray import joined_ray  # as above

    return joined_ray()
