"""The last stage that looks at texts, task by task: personal information is redacted, or its documents are dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from kindling_dataprep.executors import Executor
from kindling_dataprep.executors.tasks import Job
from kindling_dataprep.output import ledger, work
from kindling_dataprep.output.facts import PersonalFacts
from kindling_dataprep.records import Removal, excerpt_of
from kindling_dataprep.stages.clean import documents_path
from kindling_dataprep.stages.corpus import Corpus, Rows
from kindling_dataprep.stages.per_part import PartTask, removed_path, run_per_part
from kindling_dataprep.steps.pii import redact, settings_of

RULE: Final = "pii"

_TEXTS_SCHEMA = pa.schema({"id": pa.string(), "source": pa.int32(), "text": pa.string(), "digest": pa.binary(16)})


def texts_path(job: Job, index: int) -> str:
    """Where a part's texts lie as the model will see them, in the rows of `documents_path`."""
    pii = settings_of(job.spec)
    return _redacted_path(index) if pii is not None and pii.action == "redact" else documents_path(index)


def look_for_pii(corpus: Corpus, removed: Rows, executor: Executor) -> tuple[list[work.Part[PersonalFacts]], Rows]:
    """Looks through all documents but `removed`; the parts, and the removed documents with those dropped."""
    pii = settings_of(corpus.job.spec)
    assert pii is not None
    return run_per_part(RULE, redacted if pii.action == "redact" else dropped, corpus, removed, executor)


def redacted(task: PartTask) -> tuple[int, work.Part[PersonalFacts]]:
    """Writes a task's documents with placeholders, unless that was done before.

    Returns the task's index and its part.
    """
    return task.index, work.once(task.job.store(), f"pii-{task.index:05d}", PersonalFacts, partial(_redacted, task))


def _redacted(task: PartTask, part: work.NewPart) -> PersonalFacts:
    found: Counter[str] = Counter()
    texts, removed = part.folder / "texts", part.folder / "removed"
    with pq.ParquetWriter(texts, _TEXTS_SCHEMA, compression="zstd") as writer:
        for batch, pieces in _looked_through(task):
            writer.write_table(batch.set_column(2, "text", pa.array([text for text, _ in pieces], pa.string())))
            found = sum((counts for _, counts in pieces), found)
    ledger.write_table(ledger.removed_table([], task.job.spec), removed)
    part.put(_redacted_path(task.index), texts)
    part.put(removed_path(RULE, task.index, task.parts), removed)
    return PersonalFacts(removed={}, found=found)


def dropped(task: PartTask) -> tuple[int, work.Part[PersonalFacts]]:
    """Writes the ledger of a task's documents that hold personal information, unless that was done before.

    Returns the same. The ledger's measure is the first kind that was found, its value how often; the excerpt is
    redacted.
    """
    return task.index, work.once(task.job.store(), f"pii-{task.index:05d}", PersonalFacts, partial(_dropped, task))


def _dropped(task: PartTask, part: work.NewPart) -> PersonalFacts:
    found: Counter[str] = Counter()
    removals: list[Removal] = []
    for batch, pieces in _looked_through(task):
        for id, (text, counts) in zip(batch["id"].to_pylist(), pieces, strict=True):
            for kind in list(counts)[:1]:
                excerpt = excerpt_of(text)
                removals.append(
                    Removal(id=id, rule=RULE, measure=kind, value=counts[kind], threshold=0, excerpt=excerpt)
                )
            found += counts
    removed = part.folder / "removed"
    ledger.write_table(ledger.removed_table(removals, task.job.spec), removed)
    part.put(removed_path(RULE, task.index, task.parts), removed)
    return PersonalFacts(removed={RULE: len(removals)} if removals else {}, found=found)


def _looked_through(task: PartTask) -> Iterator[tuple[pa.Table, list[tuple[str, Counter[str]]]]]:
    """All documents of the part, some at a time, and for each the text without and the counts of what it held.

    Those that earlier stages removed have no text.
    """
    pii = settings_of(task.job.spec)
    assert pii is not None
    gone = set(task.removed.tolist())
    for first, batch in work.row_groups(task.job.store(), documents_path(task.index), _TEXTS_SCHEMA.names):
        texts = enumerate(batch["text"].to_pylist(), first)
        yield batch, [redact("" if row in gone else text, pii.kinds) for row, text in texts]


def _redacted_path(index: int) -> str:
    return f"{work.WORK}/pii-{index:05d}.documents.parquet"
