"""The true similarity of the pairs that MinHash proposes, however many they are.

The pairs are cut into groups whose shingles fit into memory. Each part writes the shingles of its own documents, sorted
by the groups that ask for them, and each group reads its share of every part: a shuffle by files, in which every text
is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kindling_dataprep.executors import Executor, collect
from kindling_dataprep.output import ledger, work
from kindling_dataprep.output.facts import NoFacts, ShingleFacts
from kindling_dataprep.stages.corpus import Corpus, Rows
from kindling_dataprep.steps.clusters import clusters
from kindling_dataprep.steps.minhash import packed, unpacked
from kindling_dataprep.steps.shingles import Shingles, jaccards, shingles

GROUP_CHARACTERS = 32 << 20
"""Of all pairs of a group together, those of a document once for each of its pairs."""

_SHINGLES_SCHEMA = pa.schema({"document": pa.int64(), "shingles": pa.list_(pa.uint64())})


@dataclass(frozen=True)
class ShingleTask:
    """The documents of one part that some group asks for."""

    corpus: Corpus
    part: int
    documents: Rows
    groups: Rows
    """Which group asks for each of them; parallel to `documents`, and sorted."""
    shingle: int


@dataclass(frozen=True)
class PairsTask:
    """One group of pairs."""

    corpus: Corpus
    group: int
    pairs: Rows
    """[pairs, 2]"""
    places: Sequence[tuple[int, int]]
    """The numbers of the parts that hold shingles for it, each with that of the row group."""


def similarities_of(
    corpus: Corpus, pairs: Rows, characters: Rows, shingle: int, executor: Executor
) -> NDArray[np.float64]:
    """[pairs] The exact Jaccard similarity of each of the `pairs` [n, 2] of documents.

    `characters` [documents] are the lengths of all documents.
    """
    groups = groups_of(pairs, characters)
    asking, documents = unpacked(np.unique(packed(np.repeat(groups, 2), pairs.ravel()))).T
    parts = np.searchsorted(corpus.starts, documents, side="right") - 1
    shingle_tasks = [
        ShingleTask(corpus, part, documents[some], asking[some], shingle) for part, some in _each_value(parts)
    ]
    places: dict[int, list[tuple[int, int]]] = {}
    for each, done in collect(executor, write_shingles, shingle_tasks):
        for row_group, group in enumerate(done.facts.groups):
            places.setdefault(group, []).append((each, row_group))
    members = dict(_each_value(groups))
    pairs_tasks = [PairsTask(corpus, group, pairs[some], places[group]) for group, some in members.items()]
    similarities = np.empty(len(pairs), dtype=np.float64)
    for group, found in executor.each(compare, pairs_tasks):
        similarities[members[group]] = found
    return similarities


def _each_value(values: Rows) -> Iterator[tuple[int, Rows]]:
    """Each distinct value, and where it is."""
    order = np.argsort(values, kind="stable")
    distinct, first = np.unique(values[order], return_index=True)
    return zip(distinct.tolist(), np.split(order, first[1:]), strict=False)  # nothing splits into one empty array


def groups_of(pairs: Rows, characters: Rows) -> Rows:
    """[pairs] The number of each pair's group. A group's texts have GROUP_CHARACTERS, or two of its texts more.

    Pairs that hang together stay together where they can, so that few documents are in two groups.
    """
    documents, ends = np.unique(pairs, return_inverse=True)
    labels = clusters(ends.reshape(-1, 2), len(documents))[ends.reshape(-1, 2)[:, 0]]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], labels))
    groups = np.empty(len(pairs), dtype=np.int64)
    groups[order] = np.cumsum(characters[pairs[order]].sum(axis=1)) // GROUP_CHARACTERS
    return groups


def write_shingles(task: ShingleTask) -> tuple[int, work.Part[ShingleFacts]]:
    """Writes the shingles that were asked for, each row group for one group.

    Returns the task's part, and what was written.
    """
    store, name = task.corpus.job.store(), f"shingles-{task.part:05d}"
    return task.part, work.once(store, name, ShingleFacts, partial(_write_shingles, task))


def _write_shingles(task: ShingleTask, part: work.NewPart) -> ShingleFacts:
    rows = task.documents - task.corpus.starts[task.part]
    groups: list[int] = []
    file = part.folder / "shingles"
    with pq.ParquetWriter(file, _SHINGLES_SCHEMA, compression="zstd", use_dictionary=False) as writer:
        for first, texts in task.corpus.texts(task.part, rows):
            here = (rows >= first) & (rows < first + len(texts))
            for group in np.unique(task.groups[here]).tolist():
                asked = here & (task.groups == group)
                found = shingles(texts.take(rows[asked] - first).to_pylist(), task.shingle)
                lists = pa.ListArray.from_arrays(pa.array(found.starts, pa.int32()), found.hashes)
                table = pa.table([pa.array(task.documents[asked]), lists], schema=_SHINGLES_SCHEMA)
                writer.write_table(table, row_group_size=len(table))
                groups.append(group)
    part.put(_shingles_path(task.part), file)
    return ShingleFacts(groups=groups)


def compare(task: PairsTask) -> tuple[int, NDArray[np.float64]]:
    """The number of a group, and the similarity of each of its pairs."""
    store, name = task.corpus.job.store(), f"pairs-{task.group:05d}"
    path = f"{work.WORK}/{name}.parquet"

    def fill(part: work.NewPart) -> NoFacts:
        tables = []
        for number, row_group in task.places:
            with store.open(_shingles_path(number)) as stream:
                tables.append(pq.ParquetFile(stream, pre_buffer=False).read_row_group(row_group, use_threads=False))
        table = pa.concat_tables(tables).combine_chunks()
        lists = table["shingles"].chunk(0)
        sets = Shingles(lists.flatten().to_numpy(), lists.offsets.to_numpy().astype(np.int64))
        documents = table["document"].to_numpy()
        order = np.argsort(documents)
        positions = order[np.searchsorted(documents, task.pairs, sorter=order)]
        ledger.write_table(pa.table({"jaccard": jaccards(sets, positions)}), part.folder / "pairs")
        part.put(path, part.folder / "pairs")
        return NoFacts()

    work.once(store, name, NoFacts, fill)
    return task.group, work.read_table(store, path)["jaccard"].to_numpy()


def _shingles_path(part: int) -> str:
    return f"{work.WORK}/shingles-{part:05d}.parquet"
