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
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kindling_api.errors import DataError, NotFoundError, explain
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_dataprep.executors.tasks import Job
from kindling_dataprep.output import ledger, work
from kindling_dataprep.output.damage import damage_facts
from kindling_dataprep.output.facts import CleanFacts, LineFacts
from kindling_dataprep.records import BAD_RECORD, Document, InputFile, LinesRemoved, Remark, Removal, Span, excerpt_of
from kindling_dataprep.stages.line_counts import (
    Kind,
    LineHolders,
    distinct,
    line_holders_name,
    put_line_holders,
    repeated_lines,
)
from kindling_dataprep.steps.adult import SITES, blocklist_of, domains_in
from kindling_dataprep.steps.boilerplate import boilerplate_of, line_hashes
from kindling_dataprep.steps.clean_batch import CleanedBatch, Lists, clean_batch, repaired_by
from kindling_dataprep.steps.decide import margins
from kindling_dataprep.steps.exact import text_digest
from kindling_dataprep.steps.faults import FAULTS
from kindling_dataprep.steps.lines import piece_hashes
from kindling_dataprep.steps.minhash import band_keys, banding, signatures
from kindling_dataprep.steps.read import opener, read, store_uri
from kindling_dataprep.steps.unpack import ZSTD_WINDOWS
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
    columns |= {"characters": pa.int64(), "bytes": pa.int64(), "excerpt": pa.string()}
    if (min_hash := spec.deduplicate.min_hash) is not None and min_hash.keep == "best":
        columns["margin"] = pa.float64()
    columns |= {band_column(band): pa.uint64() for band in range(_bands(spec))}
    return pa.schema(columns)


def band_column(band: int) -> str:
    """The column of the keys of one MinHash band."""
    return f"band{band:03d}"


def _bands(spec: DatasetBuildSpec) -> int:
    min_hash = spec.deduplicate.min_hash
    return banding(min_hash)[0] if min_hash is not None else 0


def documents_path(index: int) -> str:
    """Where a task's documents lie."""
    return f"{work.WORK}/clean-{index:05d}.documents.parquet"


def measures_path(index: int) -> str:
    """Where the measures of all documents of a task lie: a part of the product."""
    return ledger.part_path(ledger.MEASURES, index)


def clean(task: CleanTask) -> tuple[int, work.Part[CleanFacts]]:
    """Does one task, unless it was done before.

    Returns the task's index and its part.
    """
    return task.index, work.once(task.job.store(), f"clean-{task.index:05d}", CleanFacts, partial(_clean, task))


def _clean(task: CleanTask, part: work.NewPart) -> CleanFacts:
    spec = task.job.spec
    lists = _lists(task)
    lines_removed: list[LinesRemoved] = []
    documents, removed, measures = (part.folder / table for table in ("documents", "removed", "measures"))
    measures_schema = clean_batch([], spec).measures.schema
    with (
        pq.ParquetWriter(documents, documents_schema(spec), compression="zstd") as documents_writer,
        pq.ParquetWriter(removed, ledger.REMOVED_SCHEMA, compression="zstd") as removed_writer,
        pq.ParquetWriter(measures, measures_schema, compression="zstd") as measures_writer,
    ):
        counts: Counter[str] = Counter()
        bad: list[str] = []
        places: list[Removal] = []
        remarks: list[Remark] = []
        for batch in _batches(_records(task, remarks)):
            outcome = clean_batch(batch, spec, lists)
            lists = replace(lists, place=lists.place + len(batch))
            documents_writer.write_table(_documents_table(outcome, spec))
            removed_writer.write_table(ledger.removed_table(outcome.removed, spec))
            measures_writer.write_table(outcome.measures)
            counts.update(removal.rule for removal in outcome.removed)
            counts["kept"] += len(outcome.kept)
            lines_removed += outcome.lines_removed
            places += [each for each in outcome.removed if each.unread is not None]
            bad += [
                f"{each.id} ({each.note or FAULTS[each.measure]})"
                for each in outcome.removed
                if each.rule == BAD_RECORD
            ]
    part.put(documents_path(task.index), documents)
    part.put(ledger.part_path(ledger.REMOVED, task.index), removed)
    part.put(measures_path(task.index), measures)
    ledger.write_table(ledger.lines_table(lines_removed, spec), part.folder / "lines")
    part.put(ledger.part_path(ledger.LINES, task.index), part.folder / "lines")
    kept = counts.pop("kept", 0)
    return CleanFacts(
        kept=kept,
        removed=counts,
        bad_records=bad[:BAD_RECORDS_SHOWN],
        damage=damage_facts(places, remarks),
        lines_removed=_by_rule(lines_removed),
    )


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


def count_lines(task: CleanTask) -> tuple[int, work.Part[LineFacts]]:
    """Notes which lines a task's documents hold, unless that was done before.

    Returns the task's index and its part.
    """
    return task.index, work.once(
        task.job.store(), line_holders_name(task.index), LineFacts, partial(_count_lines, task)
    )


def _count_lines(task: CleanTask, part: work.NewPart) -> LineFacts:
    boilerplate, duplicates = boilerplate_of(task.job.spec), task.job.spec.deduplicate.lines
    rules = dict(each.chosen for each in task.job.spec.filters)
    by_text, by_place = [_line_holders(set(), 0)], [_line_holders(set(), 0)]
    documents = 0
    begins: dict[Kind, list[int]] = {}
    for place, record in enumerate(_records(task, []), start=_place(task)):
        document = repaired_by(record, rules) if isinstance(record, Document) else record
        if isinstance(document, Removal):
            continue
        documents += 1
        if boilerplate is not None:
            text = int.from_bytes(text_digest(document.text)[:8], "little")
            by_text.append(_line_holders(line_hashes(document, boilerplate), text))
        if duplicates is not None:
            by_place.append(_line_holders(piece_hashes(document.text, duplicates), place))
    if boilerplate is not None:
        line_holders = distinct(np.concatenate(by_text), boilerplate.min_documents)
        begins["boilerplate"] = put_line_holders(part, "boilerplate", task.index, line_holders, task.ranges)
    if duplicates is not None:
        line_holders = distinct(np.concatenate(by_place), FEWEST_HOLDERS)
        begins["lines"] = put_line_holders(part, "lines", task.index, line_holders, task.ranges)
    return LineFacts(documents=documents, **begins)


def _line_holders(lines: Collection[int], holder: int) -> LineHolders:
    line_holders: LineHolders = np.empty((len(lines), 2), dtype=np.uint64)
    line_holders[:, 0], line_holders[:, 1] = np.fromiter(lines, dtype=np.uint64, count=len(lines)), holder
    return line_holders


def _place(task: CleanTask) -> int:
    """Of the task's first record, in the order of the sources; those of a task's records follow one another."""
    return task.index << 32


def _by_rule(removed: Iterable[LinesRemoved]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for each in removed:
        counts[each.rule] += each.lines
    return counts


def _documents_table(outcome: CleanedBatch, spec: DatasetBuildSpec) -> pa.Table:
    documents = outcome.kept
    texts = [document.text for document in documents]
    columns: dict[str, Any] = {
        "id": [document.id for document in documents],
        "source": [document.source for document in documents],
        "text": texts,
        "digest": [text_digest(text) for text in texts],
        "characters": [len(text) for text in texts],
        "bytes": [len(text.encode()) for text in texts],
        "excerpt": [excerpt_of(text) for text in texts],
    }
    if (min_hash := spec.deduplicate.min_hash) is not None:
        keys = band_keys(signatures(texts, min_hash), min_hash)
        columns |= {band_column(band): keys[:, band] for band in range(_bands(spec))}
        if min_hash.keep == "best":
            columns["margin"] = margins(outcome.measures.filter(pc.is_null(pc.field("rule"))), spec.filters)
    return pa.table(columns, schema=documents_schema(spec))


def _records(task: CleanTask, remarks: list[Remark]) -> Iterator[Document | Removal]:
    """The records of all spans of the task; what is remarked on files goes to `remarks`.

    Raises:
        DataError: a file is no longer what it was when the inputs were listed.
    """
    window = ZSTD_WINDOWS[task.job.spec.engine.zstd_window]
    for span in task.spans:
        source = task.job.spec.sources[span.file.source]
        with suppress(NotFoundError):
            for record in read(span, source, open_store=task.job.open_input, window=window):
                if isinstance(record, Remark):
                    remarks.append(record)
                else:
                    yield record
        _check_unchanged(opener(source, task.job.open_input)(store_uri(span.file.uri)), span.file)


def _check_unchanged(store: ObjectStore, file: InputFile) -> None:
    try:
        if store.info(file.path).etag == file.etag:
            return
        found = file_entry(store, file.path).digest
    except NotFoundError:
        found = "nothing"
    if found != file.digest:
        remedy = "leave the inputs alone while a build runs, and run it again"
        raise DataError(explain(f"{file.uri}/{file.name}", found=found, allowed=file.digest, remedy=remedy))


def _batches(records: Iterator[Document | Removal]) -> Iterator[list[Document | Removal]]:
    while batch := list(_up_to(BATCH_CHARACTERS, islice(records, BATCH_DOCUMENTS))):
        yield batch


def _up_to(characters: int, records: Iterable[Document | Removal]) -> Iterator[Document | Removal]:
    for record in records:
        yield record
        characters -= len(record.text) if isinstance(record, Document) else 0
        if characters <= 0:
            return
