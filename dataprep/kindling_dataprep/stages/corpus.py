"""The documents that stay after the first stage, as numbers: their positions in the order of the sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kindling_dataprep.executors.tasks import Job
from kindling_dataprep.output import work
from kindling_dataprep.output.facts import CleanFacts
from kindling_dataprep.output.work import Rows as Rows
from kindling_dataprep.stages.clean import documents_path


@dataclass(frozen=True)
class Corpus:
    """How the documents are spread over the parts that cleaning wrote."""

    job: Job
    starts: Rows
    """[parts + 1] Where the documents of each part begin; the last entry is the number of documents."""

    @property
    def parts(self) -> int:
        """How many there are."""
        return len(self.starts) - 1

    @property
    def documents(self) -> int:
        """How many there are."""
        return int(self.starts[-1])

    def rows(self, documents: Rows, part: int) -> Rows:
        """Those of the sorted `documents` that lie in `part`, as rows of its table."""
        first, last = np.searchsorted(documents, self.starts[part : part + 2])
        rows: Rows = documents[first:last] - self.starts[part]
        return rows

    def column(self, name: str) -> Iterator[pa.Array]:
        """A column of all documents, part by part."""
        for part in range(self.parts):
            yield self.table(part, [name])[name].combine_chunks()

    def table(self, part: int, columns: list[str]) -> pa.Table:
        """Columns of the documents of one part."""
        return work.read_table(self.job.store(), documents_path(part), columns)

    def texts(self, part: int, rows: Rows) -> Iterator[tuple[int, pa.ChunkedArray]]:
        """Those batches of a part's texts that hold some of the `rows`, each with the number of its first row."""
        for first, batch in work.row_groups(self.job.store(), documents_path(part), ["text"], rows):
            yield first, batch["text"]

    def ids(self, documents: Rows) -> list[str]:
        """The ids of the sorted `documents`."""
        found: list[str] = []
        for part in range(self.parts):
            if len(rows := self.rows(documents, part)):
                found += self.table(part, ["id"])["id"].take(rows).to_pylist()
        return found

    def positions(self, part: int, ids: pa.ChunkedArray) -> Rows:
        """Where the documents of a part with these `ids` are, sorted."""
        found = pc.is_in(self.table(part, ["id"])["id"], value_set=ids.combine_chunks())
        rows: Rows = np.flatnonzero(found.to_numpy()) + self.starts[part]
        return rows


def corpus_of(job: Job, parts: Sequence[work.Part[CleanFacts]]) -> Corpus:
    """The documents that the `parts` of cleaning hold."""
    return Corpus(job, np.cumsum([0, *(part.facts.kept for part in parts)], dtype=np.int64))
