"""Which lines several documents hold: each cleaning task notes its lines, and ranges of their hashes are merged.

A note is a line's hash and its holder: for `boilerplate` the hash of the text, for `lines` the place of the document in
the order of the sources. Of a line's holders the smallest few are noted, as many as it takes to decide. Notes are
sorted, so that a range of hashes is a slice of each task's file, and no process holds more than its own task's notes,
or one range of everybody's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kindling_dataprep.executors import Executor
from kindling_dataprep.executors.tasks import Job
from kindling_dataprep.output import work
from kindling_dataprep.output.facts import LineFacts, NoFacts
from kindling_storage import ObjectStore

INPUT_BYTES_IN_RANGE = 256 << 20
"""Bytes of input whose notes are merged by one process: about half as many bytes of notes."""

LineHolders = NDArray[np.uint64]
"""[notes, 2] Hash of the line, holder; sorted by both."""

Kind = Literal["boilerplate", "lines"]
"""What lines are noted for."""

_STORED = np.dtype("<u8")


@dataclass(frozen=True)
class MergeTask:
    """One range of hashes."""

    job: Job
    kind: Kind
    index: int
    slices: tuple[tuple[int, int], ...]
    """For each cleaning task, the first note of the range and the first after it."""
    fewest: int
    """Holders that a line needs."""


def range_count(input_bytes: int) -> int:
    """Into how many ranges the hashes are cut: by the size of the inputs alone."""
    return max(1, -(-input_bytes // INPUT_BYTES_IN_RANGE))


def distinct(line_holders: LineHolders, most: int) -> LineHolders:
    """The notes sorted, each once, and at most `most` for a line."""
    line_holders = line_holders[np.lexsort((line_holders[:, 1], line_holders[:, 0]))]
    if len(line_holders):
        line_holders = line_holders[np.append(True, (line_holders[1:] != line_holders[:-1]).any(axis=1))]
    begins = np.flatnonzero(np.append(True, line_holders[1:, 0] != line_holders[:-1, 0])[: len(line_holders)])
    rank = np.arange(len(line_holders)) - np.repeat(begins, np.diff(np.append(begins, len(line_holders))))
    return line_holders[rank < most]


def put_line_holders(part: work.NewPart, kind: Kind, index: int, line_holders: LineHolders, ranges: int) -> list[int]:
    """Puts a cleaning task's notes: where each range begins, and where the last one ends."""
    part.put(_line_holders_path(kind, index), line_holders.astype(_STORED).tobytes())
    edges = [(number << 64) // ranges for number in range(1, ranges)]
    bounds = np.searchsorted(line_holders[:, 0], np.array(edges, dtype=np.uint64))
    return [0, *bounds.tolist(), len(line_holders)]


def merge_line_holders(
    job: Job, kind: Kind, parts: list[work.Part[LineFacts]], fewest: int, executor: Executor
) -> None:
    """Finds the lines with at least `fewest` holders, from the parts of all cleaning tasks in their order."""
    slices = [list(pairwise(_begins(part.facts, kind))) for part in parts]
    tasks = [MergeTask(job, kind, index, of_range, fewest) for index, of_range in enumerate(zip(*slices, strict=True))]
    for _ in executor.each(merge, tasks):
        pass


def merge(task: MergeTask) -> int:
    """Writes the hashes of a range's repeated lines, unless that was done before; returns the range's number."""
    work.once(task.job.store(), _merged_name(task.kind, task.index), NoFacts, partial(_merge, task))
    return task.index


def _merge(task: MergeTask, part: work.NewPart) -> NoFacts:
    slices = [
        _line_holders(part.store, task.kind, number, first, last) for number, (first, last) in enumerate(task.slices)
    ]
    line_holders = distinct(np.concatenate(slices), task.fewest)
    _, first, holders = np.unique(line_holders[:, 0], return_index=True, return_counts=True)
    repeated = line_holders[first[holders >= task.fewest]]
    part.put(_merged_path(task.kind, task.index), repeated.astype(_STORED).tobytes())
    return NoFacts()


def repeated_lines(job: Job, kind: Kind, index: int) -> dict[int, int]:
    """The repeated lines among those that a cleaning task noted, each with its smallest holder.

    All ranges are merged before.
    """
    store = job.store()
    noted = work.find(store, line_holders_name(index), LineFacts)
    assert noted is not None, "lines are counted before they are removed"
    found: dict[int, int] = {}
    for number, (first, last) in enumerate(pairwise(_begins(noted.facts, kind))):
        lines = _line_holders(store, kind, index, first, last)[:, 0]
        merged = np.frombuffer(store.get(_merged_path(kind, number)), _STORED).reshape(-1, 2)
        found.update(merged[np.isin(merged[:, 0], lines)].tolist())
    return found


def _begins(facts: LineFacts, kind: Kind) -> list[int]:
    return facts.boilerplate if kind == "boilerplate" else facts.lines


def _line_holders(store: ObjectStore, kind: Kind, index: int, first: int, last: int) -> LineHolders:
    """Some notes of a cleaning task."""
    size = 2 * _STORED.itemsize
    data = (
        store.get_range(_line_holders_path(kind, index), first * size, (last - first) * size) if last > first else b""
    )
    return np.frombuffer(data, _STORED).reshape(-1, 2)


def line_holders_name(index: int) -> str:
    """The name of the part with a cleaning task's notes."""
    return f"lines-{index:05d}"


def _line_holders_path(kind: Kind, index: int) -> str:
    return f"{work.WORK}/{line_holders_name(index)}.{kind}.notes"


def _merged_path(kind: Kind, index: int) -> str:
    return f"{work.WORK}/{_merged_name(kind, index)}.notes"


def _merged_name(kind: Kind, index: int) -> str:
    return f"repeated-{kind}-{index:05d}"
