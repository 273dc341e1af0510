"""How inputs are cut into tasks: by bytes alone, so that any number of workers does the same tasks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_dataprep.records import Span
from kindling_storage import ObjectStore, open_store

SMALLEST_TASK = 1 << 20
"""Bytes; below it, a task costs more to hand out than to do."""
LARGEST_TASK = 16 << 20
"""Bytes; what one worker holds in memory is a small multiple of it."""
TASKS_AIMED_AT = 64
"""Enough for an even load and a progress bar that moves."""


@dataclass(frozen=True)
class Job:
    """What every task needs to know: small, and safe to send to another process."""

    spec: DatasetBuildSpec
    output: StorageSpec
    folder: str

    def store(self) -> ObjectStore:
        """The folder of the product."""
        return _opened(self.output.uri, self.output.endpoint, self.output.region).child(self.folder)

    def open_input(self, uri: str) -> ObjectStore:
        """A store that sources lie in: reached as the output is, where both are S3."""
        return _opened(uri, self.output.endpoint, self.output.region)


@functools.lru_cache(maxsize=64)
def _opened(uri: str, endpoint: str | None, region: str | None) -> ObjectStore:
    """Once a process: only the first contact, which asks whether this is the right server, does not wait for it."""
    return open_store(uri, endpoint=endpoint, region=region)


def split(spans: Sequence[Span]) -> list[tuple[Span, ...]]:
    """Consecutive spans, together at most a task's size; a larger span is a task of its own.

    Larger than a task can be what is read only from its beginning, a compressed file or an archive, and what is never
    cut, a record or a row group.
    """
    total = sum(span.size for span in spans)
    limit = min(max(total // TASKS_AIMED_AT, SMALLEST_TASK), LARGEST_TASK)
    tasks: list[list[Span]] = []
    size = 0
    for span in spans:
        if not tasks or size + span.size > limit:
            tasks.append([])
            size = 0
        task = tasks[-1]
        if task and (joined := task[-1].joined(span)) is not None:
            task[-1] = joined
        else:
            task.append(span)
        size += span.size
    return [tuple(task) for task in tasks]
