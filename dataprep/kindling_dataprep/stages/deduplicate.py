"""The second stage, in one place: which of the documents that stay are copies of others.

Fingerprints of all documents are compared here; the shingle sets that verify a candidate pair are computed by tasks,
where the texts are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kindling_api.v1alpha1.dataset_build import MinHash
from kindling_dataprep import ledger, work
from kindling_dataprep.executors import Executor
from kindling_dataprep.records import Removal, excerpt_of
from kindling_dataprep.stages.clean import documents_path
from kindling_dataprep.steps.exact import exact_duplicates
from kindling_dataprep.steps.minhash import candidate_pairs, jaccard, near_duplicates, shingle_hashes
from kindling_dataprep.tasks import Job

PART = "deduplicate"
CLUSTERS_SHOWN = 8

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """The documents that stay after the first stage, in the order of the sources."""

    ids: list[str]
    starts: Rows
    """[parts + 1] Where the documents of each part begin; the last entry is the number of documents."""

    def rows(self, documents: Rows, part: int) -> Rows:
        """Those of the sorted `documents` that lie in `part`, as rows of its table."""
        first, last = np.searchsorted(documents, self.starts[part : part + 2])
        rows: Rows = documents[first:last] - self.starts[part]
        return rows


@dataclass(frozen=True)
class ShingleTask:
    """Some documents of one part whose shingle sets are asked for."""

    job: Job
    index: int
    rows: Rows
    shingle: int


def read_corpus(job: Job, parts: int) -> Corpus:
    """The ids of all documents that the first stage kept."""
    columns = [column.to_pylist() for column in _columns(job, parts, "id")]
    starts = np.cumsum([0, *(len(column) for column in columns)])
    return Corpus([id for column in columns for id in column], starts)


def deduplicate(job: Job, corpus: Corpus, executor: Executor) -> work.Part:
    """Finds the duplicates and writes them to the ledger, unless that was done before.

    The ledger's part comes after those of the first stage. The facts: removed documents by rule, candidate and verified
    pairs, and the largest clusters.
    """
    store = job.store()
    if (done := work.find(store, PART)) is not None:
        return done
    parts = len(corpus.starts) - 1
    exact: dict[str, str] = {}
    near: dict[str, tuple[str, float]] = {}
    facts: dict[str, Any] = {}
    if job.spec.deduplicate.exact:
        digests = (digest for column in _columns(job, parts, "digest") for digest in column.to_pylist())
        exact = exact_duplicates(corpus.ids, digests)
    if (min_hash := job.spec.deduplicate.min_hash) is not None:
        stay = np.array([number for number, id in enumerate(corpus.ids) if id not in exact], dtype=np.int64)
        near, facts = _near(job, corpus, stay, min_hash, executor)
    removals = removals_of(exact, near, None if min_hash is None else min_hash.threshold)
    with work.new_part(store) as part:
        table = part.folder / "removed"
        ledger.write_table(ledger.removed_table(_with_excerpts(job, corpus, removals)), table)
        part.put(ledger.part_path(ledger.REMOVED, parts), table)
        removed = Counter(removal.rule for removal in removals.values())
        part.facts = facts | {"removed": removed, "kept": -removed.total()}
        part.facts["clusters"] = _largest_clusters(removals)
        return work.finish(part, PART)


def removed_rows(job: Job, corpus: Corpus) -> Rows:
    """The documents that deduplication removed, as sorted positions in the corpus."""
    table = work.read_table(job.store(), ledger.part_path(ledger.REMOVED, len(corpus.starts) - 1), ["id"])
    position = {id: number for number, id in enumerate(corpus.ids)}
    return np.array(sorted(position[id] for id in table["id"].to_pylist()), dtype=np.int64)


def removals_of(
    exact: dict[str, str], near: dict[str, tuple[str, float]], threshold: float | None
) -> dict[str, Removal]:
    """The ledger's rows, without excerpts. Each names a document that stays, even where one copy leads to another."""
    removals = {}
    for id, kept in exact.items():
        stays = near[kept][0] if kept in near else kept
        removals[id] = Removal(
            id=id, rule="exact", measure="digest", value=None, threshold=None, kept=stays, excerpt=""
        )
    for id, (kept, value) in near.items():
        removals[id] = Removal(
            id=id, rule="minHash", measure="jaccard", value=value, threshold=threshold, kept=kept, excerpt=""
        )
    return removals


def _near(
    job: Job, corpus: Corpus, stay: Rows, spec: MinHash, executor: Executor
) -> tuple[dict[str, tuple[str, float]], dict[str, Any]]:
    """As `near_duplicates`, among the documents `stay`; and the facts about finding them."""
    parts = len(corpus.starts) - 1
    keys = _gather(job, parts, "bands", stay, spec.bands)
    pairs = candidate_pairs(keys)
    asked = np.unique(pairs)
    sets = dict(zip(asked.tolist(), _shingle_sets(job, corpus, stay[asked], spec, executor), strict=True))
    similarities = np.array([jaccard(sets[i], sets[j]) for i, j in pairs.tolist()], dtype=np.float64)
    lengths = np.concatenate([np.zeros(0, np.int64), *(c.to_numpy() for c in _columns(job, parts, "characters"))])[stay]
    found = near_duplicates([corpus.ids[i] for i in stay], lengths.tolist(), pairs, similarities, spec)
    facts = {"candidates": len(pairs), "verified": int((similarities >= spec.threshold).sum())}
    return found, facts


def _shingle_sets(
    job: Job, corpus: Corpus, documents: Rows, spec: MinHash, executor: Executor
) -> list[NDArray[np.uint64]]:
    """The shingle sets of the sorted `documents`, in their order."""
    tasks = [
        ShingleTask(job, index, rows, spec.shingle)
        for index in range(len(corpus.starts) - 1)
        if len(rows := corpus.rows(documents, index))
    ]
    by_part = dict(executor.each(shingle_sets, tasks))
    return [each for index in sorted(by_part) for each in by_part[index]]


def shingle_sets(task: ShingleTask) -> tuple[int, list[NDArray[np.uint64]]]:
    """The number of the part, and the shingle sets of the rows asked for."""
    texts = work.read_table(task.job.store(), documents_path(task.index), ["text"])["text"].take(task.rows)
    return task.index, [shingle_hashes(text.as_py(), task.shingle) for text in texts]


def _gather(job: Job, parts: int, column: str, stay: Rows, bands: int) -> NDArray[np.uint64]:
    """[documents, bands] The band keys of the documents `stay`."""
    raw = b"".join(b"".join(each.to_pylist()) for each in _columns(job, parts, column))
    return np.frombuffer(raw, "<u8").reshape(-1, bands)[stay]


def _columns(job: Job, parts: int, column: str) -> Iterator[pa.ChunkedArray]:
    store = job.store()
    for index in range(parts):
        yield work.read_table(store, documents_path(index), [column])[column]


def _with_excerpts(job: Job, corpus: Corpus, removals: dict[str, Removal]) -> Iterator[Removal]:
    """The removals in the order of the corpus, each with the beginning of its text."""
    documents = np.array([number for number, id in enumerate(corpus.ids) if id in removals], dtype=np.int64)
    for index in range(len(corpus.starts) - 1):
        if not len(rows := corpus.rows(documents, index)):
            continue
        table = work.read_table(job.store(), documents_path(index), ["id", "text"]).take(rows)
        for id, text in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True):
            yield replace(removals[id], excerpt=excerpt_of(text))


def _largest_clusters(removals: dict[str, Removal]) -> list[dict[str, Any]]:
    """The documents that stand for most others, and some of those."""
    members: dict[str, list[str]] = {}
    for removal in removals.values():
        assert removal.kept is not None
        members.setdefault(removal.kept, []).append(removal.id)
    largest = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))[:CLUSTERS_SHOWN]
    return [{"kept": kept, "size": len(ids) + 1, "removed": sorted(ids)[:3]} for kept, ids in largest]
