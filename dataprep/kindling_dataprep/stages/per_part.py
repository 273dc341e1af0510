"""What the stages after deduplication share: one task a part, over those of its documents that are still there.

Each stage adds to the ledger one part a task, after those of cleaning and of deduplication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
import pyarrow as pa

from kindling_dataprep.executors import Executor, collect
from kindling_dataprep.executors.tasks import Job
from kindling_dataprep.output import ledger, work
from kindling_dataprep.output.facts import RemovalFacts
from kindling_dataprep.stages.clean import documents_path
from kindling_dataprep.stages.corpus import Corpus, Rows

Facts = TypeVar("Facts", bound=RemovalFacts)

PartStage = Literal["toxicity", "decontaminate", "pii"]
"""In their order; also the rules by which they remove."""


@dataclass(frozen=True)
class PartTask:
    """The documents of one part, less those that earlier stages removed."""

    job: Job
    index: int
    parts: int
    removed: Rows
    """Rows of the part's table, sorted."""

    def documents(self, *columns: str) -> Iterator[pa.Table]:
        """Columns of the documents, some rows at a time."""
        return work.remaining(self.job.store(), documents_path(self.index), list(columns), self.removed)


def removed_path(stage: PartStage, index: int, parts: int) -> str:
    """Where the ledger of what one of a stage's `parts` tasks removed lies."""
    before = get_args(PartStage).index(stage)
    return ledger.part_path(ledger.REMOVED, (1 + before) * parts + 1 + index)


def run_per_part(
    stage: PartStage,
    work_on: Callable[[PartTask], tuple[int, work.Part[Facts]]],
    corpus: Corpus,
    removed: Rows,
    executor: Executor,
) -> tuple[list[work.Part[Facts]], Rows]:
    """Does a stage's tasks: their parts, and the documents `removed` with those that the stage removed."""
    store, parts = corpus.job.store(), range(corpus.parts)
    tasks = [PartTask(corpus.job, index, corpus.parts, corpus.rows(removed, index)) for index in parts]
    done = collect(executor, work_on, tasks)
    ids = [work.read_table(store, removed_path(stage, index, corpus.parts), ["id"])["id"] for index in parts]
    gone = [corpus.positions(index, ids[index]) for index in parts]
    return [part for _, part in done], np.union1d(removed, np.concatenate(gone))
