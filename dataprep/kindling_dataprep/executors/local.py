"""One task after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class LocalExecutor:
    """Small builds, and one worker."""

    workers = 1

    def each(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """The results of `work(task)`, in the order of the tasks."""
        for task in tasks:
            yield work(task)
