"""Which documents of a dataset are most like a text, by the MinHash signatures that the dataset keeps.

`signatures/part-*.parquet` has a row for each document that stays: its `id`, its `source`, and its `signature`, the
little-endian 32-bit values of datasketch's scheme `affine32` with seed 1, one for each row of each band.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_dataprep.output import ledger, work
from kindling_dataprep.steps.minhash import PERMUTATION_SEED, Signatures, signatures
from kindling_storage import ObjectStore

if TYPE_CHECKING:
    import datasketch


@dataclass(frozen=True)
class SimilarDocument:
    """A document, and how much of a text it shares."""

    id: str
    source: str
    """The URI of the source, as the dataset's spec has it."""
    jaccard: float
    """Estimated from the signatures: its standard error is √(J(1 - J) / permutations), 0.037 at 0.8 of 120."""
    excerpt: str
    """Its beginning."""


def similar(store: ObjectStore, manifest: DatasetManifest, text: str, count: int) -> list[SimilarDocument]:
    """The `count` documents of the dataset in the folder `store` that are most like `text`, those that share nothing
    left out; among equals, the first in the order of the sources.

    Raises:
        SpecError: the dataset keeps no signatures.
    """
    spec = DatasetBuildSpec.model_validate_json(json.dumps(manifest.spec))
    min_hash = spec.deduplicate.min_hash
    if min_hash is None or not min_hash.index:
        found, allowed = "a dataset without it", "a dataset that keeps the signatures of its documents"
        remedy = "set it to true in the dataset's document, and build it"
        raise SpecError(explain("spec.deduplicate.minHash.index", found=found, allowed=allowed, remedy=remedy))
    asked = sketch(signatures([text], min_hash)[0])
    nearest = heapq.nsmallest(count, _shares(store, asked), key=lambda each: (-each[0], each[1]))
    kept = ledger.read_kept(store, ["id", "excerpt"])
    rows = kept.filter(pc.is_in(kept["id"], pa.array([id for _, _, id, _ in nearest], pa.string()))).to_pylist()
    excerpts = {row["id"]: row["excerpt"] for row in rows}
    return [SimilarDocument(id, spec.sources[source].uri, share, excerpts[id]) for share, _, id, source in nearest]


def sketch(signature: Signatures) -> datasketch.MinHash:
    """[permutations] A signature as datasketch has it, to be compared, united, and put into its indexes."""
    import datasketch  # not above: it takes long to load, and only questions need it

    return datasketch.MinHash(num_perm=len(signature), seed=PERMUTATION_SEED, hashvalues=signature, scheme="affine32")


def sketches(store: ObjectStore) -> Iterator[tuple[str, datasketch.MinHash]]:
    """Each document's id and signature, in the order of the sources: for a `datasketch.MinHashLSH` of one's own."""
    for ids, _, values in _tables(store):
        yield from zip(ids, map(sketch, values), strict=True)


def _shares(store: ObjectStore, asked: datasketch.MinHash) -> Iterator[tuple[float, int, str, int]]:
    """Of each document the estimated similarity, its place, its id and its source."""
    place = 0
    for ids, sources, values in _tables(store):
        shares = (values == asked.hashvalues).mean(axis=1)
        for row in np.flatnonzero(shares > 0):
            yield float(shares[row]), place + int(row), ids[row], sources[row]
        place += len(ids)


def _tables(store: ObjectStore) -> Iterator[tuple[list[str], list[int], Signatures]]:
    """The ids, sources and signatures of some documents at a time."""
    for path in sorted(info.path for info in store.list(f"{ledger.SIGNATURES}/")):
        for _, table in work.row_groups(store, path, ledger.SIGNATURES_SCHEMA.names):
            if len(table):
                values = np.frombuffer(b"".join(table["signature"].to_pylist()), "<u4").reshape(len(table), -1)
                yield table["id"].to_pylist(), table["source"].to_pylist(), values
