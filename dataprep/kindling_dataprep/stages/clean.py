"""The first stage, task by task: read, repair, remove lines, measure, decide, and take the fingerprints that
deduplication compares.

A task writes the documents that stay, the ledger of those that do not, and all measures. Text goes from file to file, a
batch at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kindling_api.errors import DataError, NotFoundError, explain
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_dataprep import ledger, work
from kindling_dataprep.records import BAD_RECORD, Document, InputFile, Removal, Span, excerpt_of
from kindling_dataprep.steps.c4 import c4_lines
from kindling_dataprep.steps.decide import Decision, decide
from kindling_dataprep.steps.exact import text_digest
from kindling_dataprep.steps.faults import FAULTS
from kindling_dataprep.steps.measure import measure
from kindling_dataprep.steps.minhash import band_keys, signatures
from kindling_dataprep.steps.read import read, store_uri
from kindling_dataprep.steps.repair import repair
from kindling_dataprep.tasks import Job
from kindling_storage import ObjectStore
from kindling_storage.commit import file_entry

BATCH_CHARACTERS = 4 << 20
BATCH_DOCUMENTS = 2048
BAD_RECORDS_SHOWN = 5


@dataclass(frozen=True)
class CleanTask:
    """Some spans of input files."""

    job: Job
    index: int
    spans: tuple[Span, ...]


@dataclass
class Outcome:
    """What became of one batch of records."""

    kept: list[Document] = field(default_factory=list)
    removed: list[Removal] = field(default_factory=list)
    measures: pa.Table = field(default_factory=lambda: pa.table({}))
    """Of every document that was judged, one row each; as in the product (see `ledger`)."""
    lines_removed: Counter[str] = field(default_factory=Counter)
    """Lines that rules took out of documents, by rule."""


def documents_schema(spec: DatasetBuildSpec) -> pa.Schema:
    """The table of the documents that stay, text and fingerprints; each band is a column, to be read alone."""
    columns = {"id": pa.string(), "source": pa.int32(), "text": pa.string(), "digest": pa.binary(16)}
    columns |= {"characters": pa.int64(), "excerpt": pa.string()}
    columns |= {band_column(band): pa.uint64() for band in range(_bands(spec))}
    return pa.schema(columns)


def band_column(band: int) -> str:
    """The column of the keys of one MinHash band."""
    return f"band{band:03d}"


def _bands(spec: DatasetBuildSpec) -> int:
    min_hash = spec.deduplicate.min_hash
    return min_hash.bands if min_hash is not None else 0


def documents_path(index: int) -> str:
    """Where a task's documents lie."""
    return f"{work.WORK}/clean-{index:05d}.documents.parquet"


def measures_path(index: int) -> str:
    """Where the measures of all documents that a task judged lie: a part of the product."""
    return ledger.part_path(ledger.MEASURES, index)


def clean(task: CleanTask) -> tuple[int, work.Part]:
    """Does one task, unless it was done before. The facts: counts, bytes, and the first bad records.

    Returns the task's index and its part.
    """
    store, name = task.job.store(), f"clean-{task.index:05d}"
    if (done := work.find(store, name)) is not None:
        return task.index, done
    spec = task.job.spec
    with work.new_part(store) as part:
        documents, removed, measures = (part.folder / table for table in ("documents", "removed", "measures"))
        measures_schema = judge([], spec).measures.schema
        with (
            pq.ParquetWriter(documents, documents_schema(spec), compression="zstd") as documents_writer,
            pq.ParquetWriter(removed, ledger.REMOVED_SCHEMA, compression="zstd") as removed_writer,
            pq.ParquetWriter(measures, measures_schema, compression="zstd") as measures_writer,
        ):
            counts: Counter[str] = Counter()
            lines: Counter[str] = Counter()
            bad: list[str] = []
            for batch in _batches(_records(task)):
                outcome = judge(batch, spec)
                documents_writer.write_table(_documents_table(outcome.kept, spec))
                removed_writer.write_table(ledger.removed_table(outcome.removed))
                measures_writer.write_table(outcome.measures)
                counts.update(removal.rule for removal in outcome.removed)
                counts["kept"] += len(outcome.kept)
                lines += outcome.lines_removed
                bad += [f"{each.id} ({FAULTS[each.measure]})" for each in outcome.removed if each.rule == BAD_RECORD]
        part.put(documents_path(task.index), documents)
        part.put(ledger.part_path(ledger.REMOVED, task.index), removed)
        part.put(measures_path(task.index), measures)
        kept = counts.pop("kept", 0)
        part.facts = {"kept": kept, "removed": counts, "linesRemoved": lines, "badRecords": bad[:BAD_RECORDS_SHOWN]}
        part.facts["bytes"] = sum(span.size for span in task.spans)
        return task.index, work.finish(part, name)


def judge(records: Sequence[Document | Removal], spec: DatasetBuildSpec) -> Outcome:
    """Repairs, measures and decides: which of the records stay as documents, in their order, and why others do not."""
    outcome = Outcome()
    place = {record.id: number for number, record in enumerate(records)}
    rules = dict(each.chosen for each in spec.filters)
    documents = []
    for record in records:
        result = record if isinstance(record, Removal) else _prepared(record, rules, outcome.lines_removed)
        if isinstance(result, Removal):
            outcome.removed.append(result)
        else:
            documents.append(result)
    measures = measure([document.text for document in documents], spec.filters)
    decisions = decide(measures, spec.filters)
    outcome.measures = _measures_table(documents, decisions, measures)
    for document, decision in zip(documents, decisions, strict=True):
        if decision is None:
            outcome.kept.append(document)
        else:
            outcome.removed.append(
                Removal(
                    id=document.id,
                    rule=decision.rule,
                    measure=decision.measure,
                    value=decision.value,
                    threshold=decision.threshold,
                    excerpt=excerpt_of(document.text),
                )
            )
    outcome.removed.sort(key=lambda removal: place[removal.id])
    return outcome


def _prepared(document: Document, rules: Mapping[str, Any], lines_removed: Counter[str]) -> Document | Removal:
    """The document repaired and without unwanted lines, which are counted; or why nothing is left of it."""
    text = document.text
    if "formatting" in rules:
        result = repair(text, rules["formatting"])
        if not isinstance(result, str):
            return _nothing_left(document, "formatting", *result)
        text = result
    if "c4" in rules:
        text, removed = c4_lines(text, rules["c4"])
        lines_removed["c4"] += removed
        if not text:
            return _nothing_left(document, "c4", "characters", 0.0, 1.0)
    return Document(document.id, document.source, text)


def _nothing_left(document: Document, rule: str, measured: str, value: float, threshold: float) -> Removal:
    excerpt = excerpt_of(document.text)
    return Removal(id=document.id, rule=rule, measure=measured, value=value, threshold=threshold, excerpt=excerpt)


def _documents_table(documents: list[Document], spec: DatasetBuildSpec) -> pa.Table:
    texts = [document.text for document in documents]
    columns = {
        "id": [document.id for document in documents],
        "source": [document.source for document in documents],
        "text": texts,
        "digest": [text_digest(text) for text in texts],
        "characters": [len(text) for text in texts],
        "excerpt": [excerpt_of(text) for text in texts],
    }
    if (min_hash := spec.deduplicate.min_hash) is not None:
        keys = band_keys(signatures(texts, min_hash), min_hash)
        columns |= {band_column(band): keys[:, band] for band in range(min_hash.bands)}
    return pa.table(columns, schema=documents_schema(spec))


def _measures_table(documents: list[Document], decisions: list[Decision | None], measures: pa.Table) -> pa.Table:
    whose = {
        "id": pa.array([document.id for document in documents], pa.string()),
        "characters": pa.array([len(document.text) for document in documents], pa.int64()),
        "rule": pa.array([decision and decision.rule for decision in decisions], pa.string()),
    }
    return pa.table(whose | dict(zip(measures.column_names, measures.columns, strict=True)))


def _records(task: CleanTask) -> Iterator[Document | Removal]:
    """The records of all spans of the task.

    Raises:
        DataError: a file is no longer what it was when the inputs were listed.
    """
    for span in task.spans:
        source = task.job.spec.sources[span.file.source]
        with suppress(NotFoundError):
            yield from read(span, source, open_store=task.job.open_input)
        _check_unchanged(task.job.open_input(store_uri(span.file.uri)), span.file)


def _check_unchanged(store: ObjectStore, file: InputFile) -> None:
    try:
        if store.info(file.path).etag == file.etag:
            return
        found = file_entry(store, file.path).digest
    except NotFoundError:
        found = "nothing"
    if found != file.digest:
        remedy = "leave the inputs alone while a build runs, and run it again"
        raise DataError(explain(f"{file.uri}/{file.path}", found=found, allowed=file.digest, remedy=remedy))


def _batches(records: Iterator[Document | Removal]) -> Iterator[list[Document | Removal]]:
    while batch := list(_up_to(BATCH_CHARACTERS, islice(records, BATCH_DOCUMENTS))):
        yield batch


def _up_to(characters: int, records: Iterable[Document | Removal]) -> Iterator[Document | Removal]:
    for record in records:
        yield record
        characters -= len(record.text) if isinstance(record, Document) else 0
        if characters <= 0:
            return
