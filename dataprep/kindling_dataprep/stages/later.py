"""What the stages after deduplication share: one task a part, over those of its documents that are still there.

Each stage adds to the ledger one part a task, after those of cleaning and of deduplication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kindling_dataprep import ledger, work
from kindling_dataprep.executors import Executor
from kindling_dataprep.stages.clean import documents_path
from kindling_dataprep.stages.corpus import Corpus, Rows
from kindling_dataprep.tasks import Job

LaterStage = Literal["toxicity", "decontaminate", "pii"]
"""In their order; also the rules by which they remove."""


@dataclass(frozen=True)
class LaterTask:
    """The documents of one part, less those that earlier stages removed."""

    job: Job
    index: int
    parts: int
    removed: Rows
    """Rows of the part's table, sorted."""

    def documents(self, *columns: str) -> Iterator[pa.Table]:
        """Columns of the documents, some rows at a time."""
        first = 0
        with self.job.store().open(documents_path(self.index)) as stream:
            file = pq.ParquetFile(stream)
            for group in range(file.num_row_groups):
                batch = file.read_row_group(group, columns=list(columns))
                stay = np.setdiff1d(np.arange(first, first + len(batch)), self.removed) - first
                first += len(batch)
                yield batch.take(stay)


def removed_path(stage: LaterStage, index: int, parts: int) -> str:
    """Where the ledger of what one of a stage's `parts` tasks removed lies."""
    before = get_args(LaterStage).index(stage)
    return ledger.part_path(ledger.REMOVED, (1 + before) * parts + 1 + index)


def in_parts(
    stage: LaterStage,
    work_on: Callable[[LaterTask], tuple[int, work.Part]],
    corpus: Corpus,
    removed: Rows,
    executor: Executor,
) -> tuple[list[work.Part], Rows]:
    """Does a stage's tasks: their parts, and the documents `removed` with those that the stage removed."""
    store, parts = corpus.job.store(), range(corpus.parts)
    tasks = [LaterTask(corpus.job, index, corpus.parts, corpus.rows(removed, index)) for index in parts]
    done = dict(executor.each(work_on, tasks))
    ids = [work.read_table(store, removed_path(stage, index, corpus.parts), ["id"])["id"] for index in parts]
    gone = [corpus.positions(index, ids[index]) for index in parts]
    return [done[index] for index in parts], np.union1d(removed, np.concatenate(gone))
