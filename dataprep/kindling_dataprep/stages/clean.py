"""The first stage, task by task: read, repair, remove lines, measure, decide, and take the fingerprints that
deduplication compares.

A task writes the documents that stay, the ledger of those that do not, and all measures. Text goes from file to file, a
batch at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kindling_api.errors import DataError, NotFoundError, explain
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_dataprep import ledger, work
from kindling_dataprep.records import BAD_RECORD, Document, InputFile, LinesRemoved, Removal, Span, excerpt_of
from kindling_dataprep.stages.repeated import Notes, distinct, notes_name, put_notes, repeated_lines
from kindling_dataprep.steps.adult import SITES, blocklist_of, domains_in
from kindling_dataprep.steps.boilerplate import boilerplate_of, line_hashes
from kindling_dataprep.steps.decide import margins
from kindling_dataprep.steps.exact import text_digest
from kindling_dataprep.steps.faults import FAULTS
from kindling_dataprep.steps.judge import Lists, Outcome, judge, repaired_by
from kindling_dataprep.steps.lines import piece_hashes
from kindling_dataprep.steps.minhash import band_keys, signatures
from kindling_dataprep.steps.read import read, store_uri
from kindling_dataprep.tasks import Job
from kindling_storage import ObjectStore
from kindling_storage.commit import file_entry

BATCH_CHARACTERS = 4 << 20
BATCH_DOCUMENTS = 2048
BAD_RECORDS_SHOWN = 5
FEWEST_HOLDERS = 2
"""Documents that hold a line which is a duplicate in one of them."""

_BLOCKLIST = f"{work.WORK}/blocklist.txt"


@dataclass(frozen=True)
class CleanTask:
    """Some spans of input files."""

    job: Job
    index: int
    spans: tuple[Span, ...]
    ranges: int = 1
    """Into how many ranges the hashes of lines are cut, where they are counted."""


def documents_schema(spec: DatasetBuildSpec) -> pa.Schema:
    """The table of the documents that stay, text and fingerprints; each band is a column, to be read alone."""
    columns = {"id": pa.string(), "source": pa.int32(), "text": pa.string(), "digest": pa.binary(16)}
    columns |= {"characters": pa.int64(), "excerpt": pa.string()}
    if (min_hash := spec.deduplicate.min_hash) is not None and min_hash.keep == "best":
        columns["margin"] = pa.float64()
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
    lists = _lists(task)
    lines_removed: list[LinesRemoved] = []
    with work.new_part(store) as part:
        documents, removed, measures = (part.folder / table for table in ("documents", "removed", "measures"))
        measures_schema = judge([], spec).measures.schema
        with (
            pq.ParquetWriter(documents, documents_schema(spec), compression="zstd") as documents_writer,
            pq.ParquetWriter(removed, ledger.REMOVED_SCHEMA, compression="zstd") as removed_writer,
            pq.ParquetWriter(measures, measures_schema, compression="zstd") as measures_writer,
        ):
            counts: Counter[str] = Counter()
            bad: list[str] = []
            for batch in _batches(_records(task)):
                outcome = judge(batch, spec, lists)
                lists = replace(lists, place=lists.place + len(batch))
                documents_writer.write_table(_documents_table(outcome, spec))
                removed_writer.write_table(ledger.removed_table(outcome.removed, spec))
                measures_writer.write_table(outcome.measures)
                counts.update(removal.rule for removal in outcome.removed)
                counts["kept"] += len(outcome.kept)
                lines_removed += outcome.lines_removed
                bad += [f"{each.id} ({FAULTS[each.measure]})" for each in outcome.removed if each.rule == BAD_RECORD]
        part.put(documents_path(task.index), documents)
        part.put(ledger.part_path(ledger.REMOVED, task.index), removed)
        part.put(measures_path(task.index), measures)
        ledger.write_table(ledger.lines_table(lines_removed, spec), part.folder / "lines")
        part.put(ledger.part_path(ledger.LINES, task.index), part.folder / "lines")
        kept = counts.pop("kept", 0)
        part.facts = {"kept": kept, "removed": counts, "badRecords": bad[:BAD_RECORDS_SHOWN]}
        part.facts["linesRemoved"] = _by_rule(lines_removed)
        part.facts["bytes"] = sum(span.size for span in task.spans)
        return task.index, work.finish(part, name)


def put_sites(job: Job, blocklist: bytes | None) -> None:
    """Puts a user's list of domains where the tasks find it."""
    if blocklist is not None:
        job.store().put(_BLOCKLIST, blocklist)


def _lists(task: CleanTask) -> Lists:
    spec = task.job.spec
    lists = Lists(place=_place(task))
    if boilerplate_of(spec) is not None:
        lists = replace(lists, repeated=repeated_lines(task.job, "boilerplate", task.index))
    if spec.deduplicate.lines is not None:
        lists = replace(lists, first=repeated_lines(task.job, "lines", task.index))
    if (uri := blocklist_of(spec)) is not None:
        lists = replace(lists, sites=SITES | domains_in(task.job.store().get(_BLOCKLIST), uri))
    return lists


def count_lines(task: CleanTask) -> tuple[int, work.Part]:
    """Notes which lines a task's documents hold, unless that was done before.

    Returns the task's index and its part.
    """
    store, name = task.job.store(), notes_name(task.index)
    if (done := work.find(store, name)) is not None:
        return task.index, done
    boilerplate, duplicates = boilerplate_of(task.job.spec), task.job.spec.deduplicate.lines
    rules = dict(each.chosen for each in task.job.spec.filters)
    by_text, by_place = [_notes(set(), 0)], [_notes(set(), 0)]
    documents = 0
    for place, record in enumerate(_records(task), start=_place(task)):
        document = repaired_by(record, rules) if isinstance(record, Document) else record
        if isinstance(document, Removal):
            continue
        documents += 1
        if boilerplate is not None:
            text = int.from_bytes(text_digest(document.text)[:8], "little")
            by_text.append(_notes(line_hashes(document, boilerplate), text))
        if duplicates is not None:
            by_place.append(_notes(piece_hashes(document.text, duplicates), place))
    with work.new_part(store) as part:
        if boilerplate is not None:
            notes = distinct(np.concatenate(by_text), boilerplate.min_documents)
            put_notes(part, "boilerplate", task.index, notes, task.ranges)
        if duplicates is not None:
            put_notes(part, "lines", task.index, distinct(np.concatenate(by_place), FEWEST_HOLDERS), task.ranges)
        part.facts["documents"] = documents
        return task.index, work.finish(part, name)


def _notes(lines: Collection[int], holder: int) -> Notes:
    notes: Notes = np.empty((len(lines), 2), dtype=np.uint64)
    notes[:, 0], notes[:, 1] = np.fromiter(lines, dtype=np.uint64, count=len(lines)), holder
    return notes


def _place(task: CleanTask) -> int:
    """Of the task's first record, in the order of the sources; those of a task's records follow one another."""
    return task.index << 32


def _by_rule(removed: Iterable[LinesRemoved]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for each in removed:
        counts[each.rule] += each.lines
    return counts


def _documents_table(outcome: Outcome, spec: DatasetBuildSpec) -> pa.Table:
    documents = outcome.kept
    texts = [document.text for document in documents]
    columns: dict[str, Any] = {
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
        if min_hash.keep == "best":
            columns["margin"] = margins(outcome.measures.filter(pc.is_null(pc.field("rule"))), spec.filters)
    return pa.table(columns, schema=documents_schema(spec))


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
