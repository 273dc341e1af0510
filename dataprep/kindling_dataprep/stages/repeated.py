"""Which lines several documents hold: each cleaning task notes its lines, and ranges of their hashes are merged.

A note is a line's hash and its holder: for `boilerplate` the hash of the text, for `lines` the place of the document in
the order of the sources. Of a line's holders the smallest few are noted, as many as it takes to decide. Notes are
sorted, so that a range of hashes is a slice of each task's file, and no process holds more than its own task's notes,
or one range of everybody's.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kindling_dataprep import work
from kindling_dataprep.executors import Executor
from kindling_dataprep.tasks import Job
from kindling_storage import ObjectStore

INPUT_BYTES_IN_RANGE = 256 << 20
"""Bytes of input whose notes are merged by one process: about half as many bytes of notes."""

Notes = NDArray[np.uint64]
"""[notes, 2] Hash of the line, holder; sorted by both."""

Kind = Literal["boilerplate", "lines"]
"""What lines are noted for."""

_NOTE = np.dtype("<u8")


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


def distinct(notes: Notes, most: int) -> Notes:
    """The notes sorted, each once, and at most `most` for a line."""
    notes = notes[np.lexsort((notes[:, 1], notes[:, 0]))]
    if len(notes):
        notes = notes[np.append(True, (notes[1:] != notes[:-1]).any(axis=1))]
    begins = np.flatnonzero(np.append(True, notes[1:, 0] != notes[:-1, 0])[: len(notes)])
    rank = np.arange(len(notes)) - np.repeat(begins, np.diff(np.append(begins, len(notes))))
    return notes[rank < most]


def put_notes(part: work.NewPart, kind: Kind, index: int, notes: Notes, ranges: int) -> None:
    """Puts a cleaning task's notes, and where each range begins as a fact."""
    part.put(_notes_path(kind, index), notes.astype(_NOTE).tobytes())
    edges = [(number << 64) // ranges for number in range(1, ranges)]
    bounds = np.searchsorted(notes[:, 0], np.array(edges, dtype=np.uint64))
    part.facts[kind] = [0, *bounds.tolist(), len(notes)]


def merge_notes(job: Job, kind: Kind, parts: list[work.Part], fewest: int, executor: Executor) -> None:
    """Finds the lines with at least `fewest` holders, from the parts of all cleaning tasks in their order."""
    ranges = len(parts[0].facts[kind]) - 1
    tasks = [
        MergeTask(job, kind, index, tuple(tuple(part.facts[kind][index : index + 2]) for part in parts), fewest)
        for index in range(ranges)
    ]
    for _ in executor.each(merge, tasks):
        pass


def merge(task: MergeTask) -> int:
    """Writes the hashes of a range's repeated lines, unless that was done before; returns the range's number."""
    store, name = task.job.store(), _merged_name(task.kind, task.index)
    if work.find(store, name) is None:
        slices = [_notes(store, task.kind, number, first, last) for number, (first, last) in enumerate(task.slices)]
        notes = distinct(np.concatenate(slices), task.fewest)
        _, first, holders = np.unique(notes[:, 0], return_index=True, return_counts=True)
        with work.new_part(store) as part:
            part.put(_merged_path(task.kind, task.index), notes[first[holders >= task.fewest]].astype(_NOTE).tobytes())
            work.finish(part, name)
    return task.index


def repeated_lines(job: Job, kind: Kind, index: int) -> dict[int, int]:
    """The repeated lines among those that a cleaning task noted, each with its smallest holder.

    All ranges are merged before.
    """
    store = job.store()
    noted = work.find(store, notes_name(index))
    assert noted is not None, "lines are counted before they are removed"
    found: dict[int, int] = {}
    for number, (first, last) in enumerate(pairwise(noted.facts[kind])):
        lines = _notes(store, kind, index, first, last)[:, 0]
        merged = np.frombuffer(store.get(_merged_path(kind, number)), _NOTE).reshape(-1, 2)
        found.update(merged[np.isin(merged[:, 0], lines)].tolist())
    return found


def _notes(store: ObjectStore, kind: Kind, index: int, first: int, last: int) -> Notes:
    """Some notes of a cleaning task."""
    size = 2 * _NOTE.itemsize
    data = store.get_range(_notes_path(kind, index), first * size, (last - first) * size) if last > first else b""
    return np.frombuffer(data, _NOTE).reshape(-1, 2)


def notes_name(index: int) -> str:
    """The name of the part with a cleaning task's notes."""
    return f"lines-{index:05d}"


def _notes_path(kind: Kind, index: int) -> str:
    return f"{work.WORK}/{notes_name(index)}.{kind}.notes"


def _merged_path(kind: Kind, index: int) -> str:
    return f"{work.WORK}/{_merged_name(kind, index)}.notes"


def _merged_name(kind: Kind, index: int) -> str:
    return f"repeated-{kind}-{index:05d}"
