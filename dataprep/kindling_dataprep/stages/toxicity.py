"""Between deduplication and the tokenizer, task by task: how toxic each document is that stays, and which go for it."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kindling_dataprep.executors import Executor
from kindling_dataprep.output import ledger, work
from kindling_dataprep.output.facts import RemovalFacts
from kindling_dataprep.records import Removal, excerpt_of
from kindling_dataprep.stages.corpus import Corpus, Rows
from kindling_dataprep.stages.per_part import PartTask, removed_path, run_per_part
from kindling_toxicity.model import load

RULE: Final = "toxicity"
SCORES = "scores"
"""The table of scores, a part of the product: one row a document that was scored."""

_MODEL = f"{work.WORK}/toxicity.npz"
_SCORES_SCHEMA = pa.schema({"id": pa.string(), "toxicity": pa.float32()})


def filter_toxicity(
    corpus: Corpus, removed: Rows, model: bytes, executor: Executor
) -> tuple[list[work.Part[RemovalFacts]], Rows]:
    """Scores all documents but `removed`; the parts, and the removed documents with those that are too toxic."""
    corpus.job.store().put(_MODEL, model)
    return run_per_part(RULE, score, corpus, removed, executor)


def score(task: PartTask) -> tuple[int, work.Part[RemovalFacts]]:
    """Writes the scores of a task's documents and the ledger of those removed, unless that was done before.

    Returns the task's index and its part.
    """
    return task.index, work.once(task.job.store(), f"toxicity-{task.index:05d}", RemovalFacts, partial(_score, task))


def _score(task: PartTask, part: work.NewPart) -> RemovalFacts:
    spec = task.job.spec.toxicity
    assert spec is not None
    model = load(part.store.get(_MODEL), spec.model)
    removals: list[Removal] = []
    scored, removed = part.folder / "scores", part.folder / "removed"
    with pq.ParquetWriter(scored, _SCORES_SCHEMA, compression="zstd") as writer:
        for batch in task.documents("id", "text"):
            ids, texts = batch["id"].to_pylist(), batch["text"].to_pylist()
            scores = model.scores(texts)
            writer.write_table(pa.table({"id": ids, "toxicity": scores.astype(np.float32)}, schema=_SCORES_SCHEMA))
            toxic = np.flatnonzero(scores > spec.threshold).tolist()
            removals += [_removal(ids[row], texts[row], float(scores[row]), spec.threshold) for row in toxic]
    ledger.write_table(ledger.removed_table(removals, task.job.spec), removed)
    part.put(ledger.part_path(SCORES, task.index), scored)
    part.put(removed_path(RULE, task.index, task.parts), removed)
    return RemovalFacts(removed={RULE: len(removals)} if removals else {})


def _removal(id: str, text: str, score: float, threshold: float) -> Removal:
    excerpt = excerpt_of(text)
    return Removal(id=id, rule=RULE, measure="score", value=score, threshold=threshold, excerpt=excerpt)
