"""After toxicity, task by task: documents that share an n-gram with an evaluation set go."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from kindling_api.errors import DataError, SpecError, explain
from kindling_api.resolve import shown_path
from kindling_api.v1alpha1.dataset_build import Decontaminate, Source
from kindling_dataprep.executors import Executor
from kindling_dataprep.executors.tasks import Job
from kindling_dataprep.output import ledger, work
from kindling_dataprep.output.facts import RemovalFacts
from kindling_dataprep.records import InputFile, Removal, excerpt_of
from kindling_dataprep.stages.corpus import Corpus, Rows
from kindling_dataprep.stages.per_part import PartTask, removed_path, run_per_part
from kindling_dataprep.steps.decontaminate import (
    EvaluationSet,
    evaluation_set,
    evaluation_texts,
    fewest_words,
    leaks,
)
from kindling_dataprep.steps.read import list_inputs, store_uri
from kindling_storage import ObjectStore
from kindling_storage.globs import OpenStore

RULE: Final = "decontaminate"
_FIELD: Final = "spec.decontaminate"

_RUNS = pa.schema({"length": pa.int32(), "hashes": pa.list_(pa.uint64())})


def evaluation_files(asked: Sequence[Decontaminate], open_store: OpenStore) -> list[list[InputFile]]:
    """The files of each evaluation set, with the digests of their content.

    Raises:
        SpecError, DataError: there are none, or of a kind that is not read.
    """
    return [_files(number, each, open_store) for number, each in enumerate(asked)]


def decontaminate(
    corpus: Corpus, files: Sequence[Sequence[InputFile]], removed: Rows, executor: Executor
) -> tuple[list[work.Part[RemovalFacts]], Rows]:
    """Looks through all documents but `removed`; the parts, and the removed documents with those that leak."""
    job, store = corpus.job, corpus.job.store()
    for number, (each, of_set) in enumerate(zip(job.spec.decontaminate, files, strict=True)):
        if not store.exists(_set_path(number)):
            _put_set(store, number, _evaluation_set(number, each, of_set, job.open_input))
    return run_per_part(RULE, look_for_leaks, corpus, removed, executor)


def unrecognised(job: Job) -> list[str]:
    """A sentence for each evaluation set with texts that are too short to be recognised."""
    sentences = []
    for number, each in enumerate(job.spec.decontaminate):
        found = _read_set(job.store(), number, each)
        if found.short:
            words = fewest_words(each.ngram)
            sentences.append(
                f"{found.name}: {found.short:,} of {found.texts:,} evaluation texts have fewer than {words} words, too "
                "few to be recognised; documents that hold them stay"
            )
    return sentences


def look_for_leaks(task: PartTask) -> tuple[int, work.Part[RemovalFacts]]:
    """Writes the ledger of a task's documents that leak, unless that was done before.

    Returns the task's index and its part. The ledger's measure names the evaluation set and its value is the number of
    shared n-grams, in the set with most.
    """
    name = f"{RULE}-{task.index:05d}"
    return task.index, work.once(task.job.store(), name, RemovalFacts, partial(_look_for_leaks, task))


def _look_for_leaks(task: PartTask, part: work.NewPart) -> RemovalFacts:
    sets = [_read_set(part.store, number, each) for number, each in enumerate(task.job.spec.decontaminate)]
    removals = []
    for batch in task.documents("id", "text"):
        ids, texts = batch["id"].to_pylist(), batch["text"].to_pylist()
        for id, text, found in zip(ids, texts, leaks(texts, sets), strict=True):
            if found:
                where = max(found, key=lambda name: found[name])
                excerpt, shared = excerpt_of(text), float(found[where])
                removals.append(Removal(id=id, rule=RULE, measure=where, value=shared, threshold=0.0, excerpt=excerpt))
    removed = part.folder / "removed"
    ledger.write_table(ledger.removed_table(removals, task.job.spec), removed)
    part.put(removed_path(RULE, task.index, task.parts), removed)
    return RemovalFacts(removed={RULE: len(removals)} if removals else {})


def _files(number: int, asked: Decontaminate, open_store: OpenStore) -> list[InputFile]:
    spans = list_inputs((Source(uri=asked.uri),), open_store=open_store, field=_FIELD, first=number)
    files = list(dict.fromkeys(span.file for span in spans))
    for file in files:
        if file.format not in ("jsonl", "parquet", "text"):
            found = f"{file.name}, which is {file.format}"
            remedy = "write the evaluation set as jsonl"
            raise SpecError(
                explain(f"{_where(number)}.uri", found=found, allowed="jsonl, parquet or text", remedy=remedy)
            )
    return files


def _evaluation_set(
    number: int, asked: Decontaminate, files: Sequence[InputFile], open_store: OpenStore
) -> EvaluationSet:
    texts: list[str] = []
    for file in files:
        data = open_store(store_uri(file.uri)).get(file.path)
        try:
            texts += evaluation_texts(io.BytesIO(data), file)
        except (ValueError, OSError, pa.ArrowException) as error:
            found, allowed = f"{file.name}, which is damaged ({error})", f"a whole {file.format} file"
            raise DataError(
                explain(f"{_where(number)}.uri", found=found, allowed=allowed, remedy="repair the file")
            ) from error
    found_set = evaluation_set(asked.uri, texts, asked.ngram)
    if not found_set.hashes:
        found = f"no text of {fewest_words(asked.ngram)} words"
        allowed = "an evaluation set with longer texts"
        remedy = f"set {_where(number)}.ngram to fewer words"
        raise DataError(explain(f"{_where(number)}.uri", found=found, allowed=allowed, remedy=remedy))
    return found_set


def _put_set(store: ObjectStore, number: int, found: EvaluationSet) -> None:
    counts = {"texts": str(found.texts), "short": str(found.short)}
    columns = {"length": list(found.hashes), "hashes": list(found.hashes.values())}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=_RUNS.with_metadata(counts)), sink)
    store.put(_set_path(number), sink.getvalue().to_pybytes())


def _read_set(store: ObjectStore, number: int, asked: Decontaminate) -> EvaluationSet:
    table = work.read_table(store, _set_path(number))
    hashes = [each.values.to_numpy() for each in table["hashes"]]
    counts = table.schema.metadata
    by_length = dict(zip(table["length"].to_pylist(), hashes, strict=True))
    return EvaluationSet(shown_path(asked.uri), by_length, int(counts[b"texts"]), int(counts[b"short"]))


def _where(number: int) -> str:
    return f"{_FIELD}[{number}]"


def _set_path(number: int) -> str:
    return f"{work.WORK}/{RULE}-{number:05d}.runs.parquet"
