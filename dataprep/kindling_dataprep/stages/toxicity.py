"""Between deduplication and the tokenizer, task by task: how toxic each document is that stays, and which go for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from kindling_dataprep import ledger, work
from kindling_dataprep.executors import Executor
from kindling_dataprep.records import Removal, excerpt_of
from kindling_dataprep.stages.clean import documents_path
from kindling_dataprep.stages.corpus import Corpus, Rows
from kindling_dataprep.steps.toxicity import load
from kindling_dataprep.tasks import Job

RULE = "toxicity"
SCORES = "scores"
"""The table of scores, a part of the product: one row a document that was judged."""

_MODEL = f"{work.WORK}/toxicity.npz"
_SCORES_SCHEMA = pa.schema({"id": pa.string(), "toxicity": pa.float32()})


@dataclass(frozen=True)
class ToxicityTask:
    """The documents of one part, less those that deduplication removed."""

    job: Job
    index: int
    parts: int
    removed: Rows
    """Rows of the part's table, sorted."""


def removed_path(index: int, parts: int) -> str:
    """Where the ledger of what one of `parts` tasks removed lies: after the parts of cleaning and deduplication."""
    return ledger.part_path(ledger.REMOVED, parts + 1 + index)


def judge_toxicity(
    job: Job, corpus: Corpus, removed: Rows, model: bytes, executor: Executor
) -> tuple[list[work.Part], Rows]:
    """Scores all documents but `removed`; the parts, and the removed documents with those that are too toxic."""
    store = job.store()
    store.put(_MODEL, model)
    parts = corpus.parts
    tasks = [ToxicityTask(job, index, parts, corpus.rows(removed, index)) for index in range(parts)]
    by_part = dict(executor.each(score, tasks))
    toxic = _positions(corpus)
    return [by_part[index] for index in range(parts)], np.union1d(removed, toxic)


def score(task: ToxicityTask) -> tuple[int, work.Part]:
    """Writes the scores of a task's documents and the ledger of those removed, unless that was done before.

    Returns the task's index and its part; the facts are the counts.
    """
    store, name = task.job.store(), f"toxicity-{task.index:05d}"
    if (done := work.find(store, name)) is not None:
        return task.index, done
    spec = task.job.spec.toxicity
    assert spec is not None
    table = work.read_table(store, documents_path(task.index), ["id", "text"])
    table = table.take(np.setdiff1d(np.arange(len(table)), task.removed))
    ids, texts = table["id"].to_pylist(), table["text"].to_pylist()
    scores = load(store.get(_MODEL), spec.model).scores(texts)
    removals = [
        _removal(ids[row], texts[row], float(scores[row]), spec.threshold)
        for row in np.flatnonzero(scores > spec.threshold)
    ]
    with work.new_part(store) as part:
        judged, removed = part.folder / "scores", part.folder / "removed"
        ledger.write_table(pa.table({"id": ids, "toxicity": scores.astype(np.float32)}, schema=_SCORES_SCHEMA), judged)
        ledger.write_table(ledger.removed_table(removals), removed)
        part.put(ledger.part_path(SCORES, task.index), judged)
        part.put(removed_path(task.index, task.parts), removed)
        part.facts = {"removed": {RULE: len(removals)} if removals else {}, "kept": -len(removals)}
        part.facts["judged"] = len(ids)
        return task.index, work.finish(part, name)


def _removal(id: str, text: str, score: float, threshold: float) -> Removal:
    excerpt = excerpt_of(text)
    return Removal(id=id, rule=RULE, measure="score", value=score, threshold=threshold, excerpt=excerpt)


def _positions(corpus: Corpus) -> Rows:
    """The documents that were removed, as positions in the corpus."""
    store = corpus.job.store()
    paths = [removed_path(index, corpus.parts) for index in range(corpus.parts)]
    ids = [work.read_table(store, path, ["id"])["id"] for path in paths]
    return np.concatenate([corpus.positions(part, removed) for part, removed in enumerate(ids)])
