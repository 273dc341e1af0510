"""Who does the tasks: this process, or Ray's workers. The tasks and their results are the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

from kindling_dataprep.executors.local import LocalExecutor

Task = TypeVar("Task")
Result = TypeVar("Result")

WORTH_STARTING_RAY = 4 << 20
"""Bytes of input; Ray takes some seconds to start, in which one core does as much as this."""


class Executor(Protocol):
    """Does a list of tasks."""

    @property
    def workers(self) -> int:
        """How many tasks are done at once."""

    def each(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """The results of `work(task)`, in the order in which they are ready; raises what `work` raises."""


def start(requested: int, tasks: int, input_bytes: int) -> AbstractContextManager[Executor]:
    """The executor for a build: Ray with min(requested, cores, tasks) workers, where more than one has enough to do.

    Args:
        requested: `spec.engine.workers`; 0 means as many as there are cores.
        tasks: Number of tasks that the inputs were cut into.
        input_bytes: Size of all inputs.
    """
    cores = len(os.sched_getaffinity(0))
    workers = min(requested or cores, cores, tasks)
    if workers < 2 or input_bytes < WORTH_STARTING_RAY:
        return nullcontext(LocalExecutor())
    from kindling_dataprep.executors.ray import ray_executor  # not above: loading Ray takes a second

    return ray_executor(workers)
