"""The second stage: which of the documents that stay are copies of others.

No process holds a text, an id or a signature of every document. Digests are compared in one place, at 16 bytes a
document; each band of the signatures is a task, which pairs the documents that share a bucket; further tasks verify the
pairs (`verify`). Documents are numbers here: positions in the corpus.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kindling_api.v1alpha1.dataset_build import MinHash
from kindling_dataprep.executors import Executor
from kindling_dataprep.output import ledger, work
from kindling_dataprep.output.facts import DuplicateCluster, DuplicateFacts, NoFacts
from kindling_dataprep.records import Removal
from kindling_dataprep.stages.clean import band_column
from kindling_dataprep.stages.corpus import Corpus, Rows
from kindling_dataprep.stages.verify import similarities_of
from kindling_dataprep.steps.clusters import NO_DUPLICATES, Duplicates, near_duplicates
from kindling_dataprep.steps.exact import first_of_equals
from kindling_dataprep.steps.minhash import banding, bucket_pairs, unpacked

PART = "deduplicate"
CLUSTERS_SHOWN = 8

_COPIES = f"{work.WORK}/copies.parquet"
_REMOVED = f"{work.WORK}/duplicates.parquet"


@dataclass(frozen=True)
class BandTask:
    """One band of all signatures."""

    corpus: Corpus
    band: int


def deduplicate(corpus: Corpus, executor: Executor) -> work.Part[DuplicateFacts]:
    """Finds the duplicates and writes them to the ledger, unless that was done before.

    The ledger's part comes after those of the first stage.
    """
    return work.once(corpus.job.store(), PART, DuplicateFacts, partial(_deduplicate, corpus, executor))


def _deduplicate(corpus: Corpus, executor: Executor, part: work.NewPart) -> DuplicateFacts:
    spec = corpus.job.spec.deduplicate
    copies = find_copies(corpus) if spec.exact else NO_DUPLICATES
    near, candidates, verified = NO_DUPLICATES, None, None
    if spec.min_hash is not None:
        near, candidates, verified = _near(corpus, copies, spec.min_hash, executor)
    removals = removals_of(copies, near)
    documents, table = part.folder / "documents", part.folder / "removed"
    ledger.write_table(removals.select(["document"]), documents)
    _write_ledger(corpus, removals, table)
    part.put(_REMOVED, documents)
    part.put(ledger.part_path(ledger.REMOVED, corpus.parts), table)
    return DuplicateFacts(
        removed=Counter(removals["rule"].to_pylist()),
        candidates=candidates,
        verified=verified,
        clusters=_largest_clusters(corpus, removals),
    )


def removed_rows(corpus: Corpus) -> Rows:
    """The documents that deduplication removed, as sorted positions in the corpus."""
    rows: Rows = work.read_table(corpus.job.store(), _REMOVED)["document"].to_numpy()
    return rows


def find_copies(corpus: Corpus) -> Duplicates:
    """The exact copies; of equal documents the first stays."""
    halves = [np.frombuffer(b"".join(digests.to_pylist()), "<u8") for digests in corpus.column("digest")]
    first = first_of_equals(np.concatenate([np.empty(0, "<u8"), *halves]).reshape(-1, 2))
    removed = np.flatnonzero(first != np.arange(len(first)))
    return Duplicates(removed, first[removed], np.ones(len(removed)))


def pair_band(task: BandTask) -> tuple[int, work.Part[NoFacts]]:
    """Writes the pairs of documents that share a bucket of a band, unless that was done before.

    Returns the band's number and its part.
    """
    return task.band, work.once(task.corpus.job.store(), f"band-{task.band:03d}", NoFacts, partial(_pair_band, task))


def _pair_band(task: BandTask, part: work.NewPart) -> NoFacts:
    keys = np.concatenate([keys.to_numpy() for keys in task.corpus.column(band_column(task.band))])
    stays = np.ones(len(keys), dtype=bool)
    stays[work.read_table(part.store, _COPIES)["document"].to_numpy()] = False
    documents = np.flatnonzero(stays)
    ledger.write_table(pa.table({"pair": bucket_pairs(keys[documents], documents)}), part.folder / "pairs")
    part.put(_pairs_path(task.band), part.folder / "pairs")
    return NoFacts()


def _near(corpus: Corpus, copies: Duplicates, spec: MinHash, executor: Executor) -> tuple[Duplicates, int, int]:
    """The near-duplicates among the documents that are no copies; candidate and verified pairs."""
    write_copies(corpus, copies)
    bands, _ = banding(spec)
    for _ in executor.each(pair_band, [BandTask(corpus, band) for band in range(bands)]):
        pass
    pairs = candidates_of(corpus, bands)
    characters = _numbers(corpus, "characters")
    similarities = similarities_of(corpus, pairs, characters, spec.shingle, executor)
    verified = similarities >= spec.threshold
    worth = [_numbers(corpus, "margin"), characters] if spec.keep == "best" else [characters]
    return near_duplicates(worth, pairs[verified], similarities[verified]), len(pairs), int(verified.sum())


def _numbers(corpus: Corpus, column: str) -> NDArray[Any]:
    return np.concatenate([numbers.to_numpy() for numbers in corpus.column(column)])


def write_copies(corpus: Corpus, copies: Duplicates) -> None:
    """Tells the tasks of the bands which documents are copies."""
    with work.new_part(corpus.job.store()) as part:
        ledger.write_table(pa.table({"document": copies.removed}), part.folder / "copies")
        part.put(_COPIES, part.folder / "copies")


def candidates_of(corpus: Corpus, bands: int) -> Rows:
    """[pairs, 2] The distinct pairs that the tasks of all bands wrote."""
    store = corpus.job.store()
    by_band = (work.read_table(store, _pairs_path(band))["pair"].to_numpy() for band in range(bands))
    return unpacked(reduce(np.union1d, by_band))


def removals_of(copies: Duplicates, near: Duplicates) -> pa.Table:
    """The documents to remove, in their order: `document`, `kept`, `rule`, and of near-duplicates the `jaccard`.

    Each names a document that stays, even where one copy leads to another.
    """
    kept = copies.kept.copy()
    leads_on = np.isin(kept, near.removed)
    kept[leads_on] = near.kept[np.searchsorted(near.removed, kept[leads_on])]
    exact = pa.table(
        {
            "document": copies.removed,
            "kept": kept,
            "rule": pa.repeat("exact", len(copies.removed)),
            "jaccard": pa.nulls(len(copies.removed), pa.float64()),
        }
    )
    similar = pa.table(
        {
            "document": near.removed,
            "kept": near.kept,
            "rule": pa.repeat("minHash", len(near.removed)),
            "jaccard": near.jaccard,
        }
    )
    return pa.concat_tables([exact, similar]).sort_by("document")


def _write_ledger(corpus: Corpus, removals: pa.Table, path: Path) -> None:
    """Writes the ledger's rows, part by part."""
    spec = corpus.job.spec
    threshold = spec.deduplicate.min_hash.threshold if spec.deduplicate.min_hash is not None else None
    kept = np.unique(removals["kept"].to_numpy())
    names = dict(zip(kept.tolist(), corpus.ids(kept), strict=True))
    positions = removals["document"].to_numpy()
    first = 0
    with pq.ParquetWriter(path, ledger.REMOVED_SCHEMA, compression="zstd") as writer:
        for part in range(corpus.parts):
            if not len(rows := corpus.rows(positions, part)):
                continue
            documents = corpus.table(part, ["id", "excerpt"]).take(rows).to_pylist()
            reasons = removals.slice(first, len(rows)).to_pylist()
            first += len(rows)
            removed = [
                _removal(document, reason, names[reason["kept"]], threshold)
                for document, reason in zip(documents, reasons, strict=True)
            ]
            writer.write_table(ledger.removed_table(removed, corpus.job.spec))


def _removal(document: dict[str, str], reason: dict[str, Any], kept: str, threshold: float | None) -> Removal:
    is_exact = reason["rule"] == "exact"
    return Removal(
        id=document["id"],
        rule=reason["rule"],
        measure="digest" if is_exact else "jaccard",
        value=reason["jaccard"],
        threshold=None if is_exact else threshold,
        kept=kept,
        excerpt=document["excerpt"],
    )


def _largest_clusters(corpus: Corpus, removals: pa.Table) -> list[DuplicateCluster]:
    """The documents that stand for most others, and some of those."""
    kept, counts = np.unique(removals["kept"].to_numpy(), return_counts=True)
    found = []
    for largest in np.argsort(-counts, kind="stable")[:CLUSTERS_SHOWN].tolist():
        members = removals["document"].to_numpy()[removals["kept"].to_numpy() == kept[largest]]
        (name,) = corpus.ids(kept[largest : largest + 1])
        found.append(DuplicateCluster(kept=name, size=int(counts[largest]) + 1, removed=corpus.ids(members[:3])))
    return found


def _pairs_path(band: int) -> str:
    return f"{work.WORK}/band-{band:03d}.parquet"
