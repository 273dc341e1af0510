"""The third stage: the tokenizer, then the tokens of every document that stays, task by task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kindling_api.errors import DataError
from kindling_api.v1alpha1.products import TOKENIZER, TokenizerKind
from kindling_dataprep import ledger, tokenizer, work
from kindling_dataprep.records import excerpt_of
from kindling_dataprep.shards import token_type
from kindling_dataprep.stages.corpus import Corpus, Rows
from kindling_dataprep.stages.pii import texts_path
from kindling_dataprep.tasks import Job

Result = TypeVar("Result")


@dataclass(frozen=True)
class EncodeTask:
    """The documents of one part, less those that were removed since."""

    job: Job
    index: int
    removed: Rows
    """Rows of the part's table, sorted."""
    kind: TokenizerKind


def tokens_path(index: int) -> str:
    """Where a task's tokens lie: all its documents, one after the other, in the type of the shards."""
    return f"{work.WORK}/encode-{index:05d}.tokens"


def make_tokenizer(job: Job, corpus: Corpus, removed: Rows, existing: bytes | None) -> work.Part:
    """Writes tokenizer.json, unless that was done before.

    Args:
        job: The build.
        corpus: The documents that the first stage kept.
        removed: Those of them that were removed since.
        existing: The tokenizer that the spec names, if it names one.
    """
    store, name = job.store(), "tokenizer"
    if (done := work.find(store, name)) is not None:
        return done

    def texts() -> Iterator[list[str]]:
        for index in range(corpus.parts):
            for batch in _batches(job, index, corpus.rows(removed, index)):
                yield batch["text"].to_pylist()

    made = _interruptibly(lambda: tokenizer.make(job.spec.tokenizer, texts(), existing))
    with work.new_part(store) as part:
        part.put(TOKENIZER, made.to_bytes())
        part.facts = {"kind": made.kind, "vocabSize": made.vocab_size, "endOfDocument": made.end_of_document}
        return work.finish(part, name)


def _interruptibly(work: Callable[[], Result]) -> Result:
    """What `work` returns or raises, done in another thread: learning merges is one long call, deaf to signals."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised again by `result`, where it belongs
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future.result()


def encode(task: EncodeTask) -> tuple[int, work.Part]:
    """Writes the tokens of a task's documents, and their rows in the table of the kept; the facts are their totals.

    Returns the task's index and its part.

    Raises:
        DataError: a document holds what the tokenizer has no token for.
    """
    store, name = task.job.store(), f"encode-{task.index:05d}"
    if (done := work.find(store, name)) is not None:
        return task.index, done
    encoder = _encoder(store.get(TOKENIZER), task.kind)
    dtype = token_type(encoder.vocab_size)
    with work.new_part(store) as part:
        tokens, kept = part.folder / "tokens", part.folder / "kept"
        facts = {"documents": 0, "tokens": 0}
        with open(tokens, "wb") as file, pq.ParquetWriter(kept, ledger.KEPT_SCHEMA, compression="zstd") as writer:
            for batch in _batches(task.job, task.index, task.removed):
                texts = batch["text"].to_pylist()
                encoded = _encoded(encoder, batch, texts)
                for ids in encoded:
                    file.write(ids.astype(dtype).data)
                writer.write_table(_kept_table(batch, texts, [len(ids) for ids in encoded]))
                facts["documents"] += len(encoded)
                facts["tokens"] += sum(len(ids) for ids in encoded)
        part.put(tokens_path(task.index), tokens)
        part.put(ledger.part_path(ledger.KEPT, task.index), kept)
        part.facts = facts
        return task.index, work.finish(part, name)


@lru_cache(maxsize=1)
def _encoder(data: bytes, kind: TokenizerKind) -> tokenizer.TextEncoder:
    """One for all tasks of a process: a large vocabulary takes longer to read than a part's documents to encode."""
    return tokenizer.load(data, kind)


def _encoded(encoder: tokenizer.TextEncoder, batch: pa.Table, texts: list[str]) -> list[Any]:
    try:
        return encoder.encode(texts)
    except DataError as error:
        first, last = batch["id"][0], batch["id"][-1]
        raise DataError(f"spec.tokenizer: among documents {first} to {last}: {error}") from error


def _batches(job: Job, index: int, removed: Rows) -> Iterator[pa.Table]:
    """The documents of a part, less the rows `removed`, some at a time: the batches in which they were written."""
    first = 0
    with job.store().open(texts_path(job, index)) as stream:
        file = pq.ParquetFile(stream)
        for group in range(file.num_row_groups):
            batch = file.read_row_group(group, columns=["id", "source", "text", "digest"])
            stay = np.setdiff1d(np.arange(first, first + len(batch)), removed) - first
            first += len(batch)
            if len(stay):
                yield batch.take(stay)


def _kept_table(batch: pa.Table, texts: list[str], tokens: list[int]) -> pa.Table:
    columns = {
        "id": batch["id"],
        "source": batch["source"],
        "digest": batch["digest"],
        "characters": pc.utf8_length(batch["text"]),
        "bytes": pc.binary_length(batch["text"]),
        "words": [len(text.split()) for text in texts],
        "tokens": tokens,
        "excerpt": [excerpt_of(text) for text in texts],
    }
    return pa.table(columns, schema=ledger.KEPT_SCHEMA)
