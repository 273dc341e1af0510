"""After toxicity, task by task: documents that share an n-gram with an evaluation set go."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from kindling_api.errors import DataError, SpecError, explain
from kindling_api.resolve import shown_path
from kindling_api.v1alpha1.dataset_build import Decontaminate, Source
from kindling_dataprep import ledger, work
from kindling_dataprep.executors import Executor
from kindling_dataprep.records import InputFile, Removal, excerpt_of
from kindling_dataprep.stages.corpus import Corpus, Rows
from kindling_dataprep.stages.later import LaterTask, in_parts, removed_path
from kindling_dataprep.steps.decontaminate import EvaluationSet, evaluation_set, evaluation_texts, leaks
from kindling_dataprep.steps.read import list_inputs, store_uri
from kindling_storage import ObjectStore

RULE: Final = "decontaminate"

OpenStore = Callable[[str], ObjectStore]


def evaluation_files(asked: Sequence[Decontaminate], open_store: OpenStore) -> list[list[InputFile]]:
    """The files of each evaluation set, with the digests of their content.

    Raises:
        SpecError, DataError: there are none, or of a kind that is not read.
    """
    return [_files(number, each, open_store) for number, each in enumerate(asked)]


def decontaminate(
    corpus: Corpus, files: Sequence[Sequence[InputFile]], removed: Rows, executor: Executor
) -> tuple[list[work.Part], Rows]:
    """Looks through all documents but `removed`; the parts, and the removed documents with those that leak."""
    job, store = corpus.job, corpus.job.store()
    for number, (each, of_set) in enumerate(zip(job.spec.decontaminate, files, strict=True)):
        if not store.exists(_hashes_path(number)):
            store.put(_hashes_path(number), _hashes(number, each, of_set, job.open_input))
    return in_parts(RULE, look_for_leaks, corpus, removed, executor)


def look_for_leaks(task: LaterTask) -> tuple[int, work.Part]:
    """Writes the ledger of a task's documents that leak, unless that was done before.

    Returns the task's index and its part. The ledger's measure names the evaluation set and its value is the number of
    shared n-grams, in the set with most.
    """
    store, name = task.job.store(), f"{RULE}-{task.index:05d}"
    if (done := work.find(store, name)) is not None:
        return task.index, done
    sets = [
        EvaluationSet(shown_path(each.uri), each.ngram, np.frombuffer(store.get(_hashes_path(number)), "<u8"))
        for number, each in enumerate(task.job.spec.decontaminate)
    ]
    removals = []
    for batch in task.documents("id", "text"):
        for id, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True):
            if found := leaks(text, sets):
                where = max(found, key=lambda name: found[name])
                excerpt, shared = excerpt_of(text), float(found[where])
                removals.append(Removal(id=id, rule=RULE, measure=where, value=shared, threshold=0.0, excerpt=excerpt))
    with work.new_part(store) as part:
        removed = part.folder / "removed"
        ledger.write_table(ledger.removed_table(removals, task.job.spec), removed)
        part.put(removed_path(RULE, task.index, task.parts), removed)
        part.facts = {"removed": {RULE: len(removals)} if removals else {}, "kept": -len(removals)}
        return task.index, work.finish(part, name)


def _files(number: int, asked: Decontaminate, open_store: OpenStore) -> list[InputFile]:
    try:
        spans = list_inputs((Source(uri=asked.uri),), open_store=open_store)
    except (DataError, SpecError) as error:  # which name a source, as if it were the only one
        raise type(error)(str(error).replace("spec.sources[0]", _where(number))) from error
    files = list(dict.fromkeys(span.file for span in spans))
    for file in files:
        if file.format not in ("jsonl", "parquet", "text"):
            found = f"{file.path}, which is {file.format}"
            remedy = "write the evaluation set as jsonl"
            raise SpecError(
                explain(f"{_where(number)}.uri", found=found, allowed="jsonl, parquet or text", remedy=remedy)
            )
    return files


def _hashes(number: int, asked: Decontaminate, files: Sequence[InputFile], open_store: OpenStore) -> bytes:
    texts: list[str] = []
    for file in files:
        data = open_store(store_uri(file.uri)).get(file.path)
        try:
            texts += evaluation_texts(io.BytesIO(data), file)
        except (ValueError, OSError, pa.ArrowException) as error:
            found, allowed = f"{file.path}, which is damaged ({error})", f"a whole {file.format} file"
            raise DataError(
                explain(f"{_where(number)}.uri", found=found, allowed=allowed, remedy="repair the file")
            ) from error
    found_set = evaluation_set(asked.uri, iter(texts), asked.ngram)
    if not len(found_set.hashes):
        found, allowed = f"no text of {asked.ngram} words", "an evaluation set with longer texts"
        remedy = f"set {_where(number)}.ngram to fewer words"
        raise DataError(explain(f"{_where(number)}.uri", found=found, allowed=allowed, remedy=remedy))
    return found_set.hashes.astype("<u8").tobytes()


def _where(number: int) -> str:
    return f"spec.decontaminate[{number}]"


def _hashes_path(number: int) -> str:
    return f"{work.WORK}/{RULE}-{number:05d}.ngrams"
