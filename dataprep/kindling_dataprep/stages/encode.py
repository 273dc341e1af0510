"""The third stage: the tokenizer, then the tokens of every document that stays, task by task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache, partial
from threading import Thread
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kindling_api.errors import DataError
from kindling_api.v1alpha1.dataset_build import MinHash
from kindling_api.v1alpha1.products import TOKENIZER, TokenizerKind
from kindling_dataprep.executors.tasks import Job
from kindling_dataprep.output import ledger, work
from kindling_dataprep.output.facts import EncodingFacts, TokenizerFacts
from kindling_dataprep.output.shards import token_type
from kindling_dataprep.records import excerpt_of
from kindling_dataprep.stages.corpus import Corpus, Rows
from kindling_dataprep.stages.pii import texts_path
from kindling_dataprep.stages.sample import sampled
from kindling_dataprep.steps.minhash import signatures
from kindling_dataprep.tokenize import tokenizer
from kindling_dataprep.tokenize.pretrained import Existing

Result = TypeVar("Result")


@dataclass(frozen=True)
class EncodeTask:
    """The documents of one part, less those that were removed since."""

    job: Job
    index: int
    removed: Rows
    """Rows of the part's table, sorted."""
    kind: TokenizerKind
    end_of_document: int | None
    """The token that ends each document."""


def tokens_path(index: int) -> str:
    """Where a task's tokens lie: all its documents, one after the other, in the type of the shards."""
    return f"{work.WORK}/encode-{index:05d}.tokens"


def make_tokenizer(job: Job, corpus: Corpus, removed: Rows, existing: Existing | None) -> work.Part[TokenizerFacts]:
    """Writes tokenizer.json, unless that was done before.

    Args:
        job: The build.
        corpus: The documents that the first stage kept.
        removed: Those of them that were removed since.
        existing: The tokenizer that the spec names, if it names one.
    """

    def texts() -> Iterator[list[str]]:
        if (train := job.spec.tokenizer.train) is not None:
            return sampled(corpus, removed, train.sample)
        parts = (_batches(job, index, corpus.rows(removed, index)) for index in range(corpus.parts))
        return (batch["text"].to_pylist() for batches in parts for batch in batches)

    def make(part: work.NewPart) -> TokenizerFacts:
        made = _interruptibly(lambda: tokenizer.make(job.spec.tokenizer, texts(), existing))
        part.put(TOKENIZER, made.to_bytes())
        return TokenizerFacts(kind=made.kind, vocab_size=made.vocab_size, end_of_document=made.end_of_document)

    return work.once(job.store(), "tokenizer", TokenizerFacts, make)


def _interruptibly(call: Callable[[], Result]) -> Result:
    """What `call` returns or raises, done in another thread: learning merges is one long call, deaf to signals."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # raised again by `result`, where it belongs
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future.result()


def encode(task: EncodeTask) -> tuple[int, work.Part[EncodingFacts]]:
    """Writes the tokens of a task's documents, and their rows in the table of the kept.

    Returns the task's index and its part.

    Raises:
        DataError: a document holds what the tokenizer has no token for.
    """
    return task.index, work.once(task.job.store(), f"encode-{task.index:05d}", EncodingFacts, partial(_encode, task))


def _encode(task: EncodeTask, part: work.NewPart) -> EncodingFacts:
    encoder = _encoder(part.store.get(TOKENIZER), task.kind, task.end_of_document)
    dtype = token_type(encoder.vocab_size)
    tokens, kept = part.folder / "tokens", part.folder / "kept"
    documents = 0
    with open(tokens, "wb") as file, pq.ParquetWriter(kept, ledger.KEPT_SCHEMA, compression="zstd") as writer:
        for batch in _batches(task.job, task.index, task.removed):
            texts = batch["text"].to_pylist()
            encoded = _encoded(encoder, batch, texts)
            for ids in encoded:
                file.write(ids.astype(dtype).data)
            writer.write_table(_kept_table(batch, texts, [len(ids) for ids in encoded]))
            documents += len(encoded)
    part.put(tokens_path(task.index), tokens)
    part.put(ledger.part_path(ledger.KEPT, task.index), kept)
    if (min_hash := task.job.spec.deduplicate.min_hash) is not None and min_hash.index:
        _put_signatures(task, min_hash, part)
    return EncodingFacts(documents=documents)


def _put_signatures(task: EncodeTask, min_hash: MinHash, part: work.NewPart) -> None:
    path = part.folder / "signatures"
    with pq.ParquetWriter(path, ledger.SIGNATURES_SCHEMA, compression="zstd") as writer:
        for batch in _batches(task.job, task.index, task.removed):
            rows = [row.astype("<u4").tobytes() for row in signatures(batch["text"].to_pylist(), min_hash)]
            columns = {"id": batch["id"], "source": batch["source"], "signature": rows}
            writer.write_table(pa.table(columns, schema=ledger.SIGNATURES_SCHEMA))
    part.put(ledger.part_path(ledger.SIGNATURES, task.index), path)


@lru_cache(maxsize=1)
def _encoder(data: bytes, kind: TokenizerKind, end_of_document: int | None) -> tokenizer.TextEncoder:
    """One for all tasks of a process: a large vocabulary takes longer to read than a part's documents to encode."""
    return tokenizer.load(data, kind, end_of_document)


def _encoded(encoder: tokenizer.TextEncoder, batch: pa.Table, texts: list[str]) -> list[Any]:
    try:
        return encoder.encode(texts)
    except DataError as error:
        first, last = batch["id"][0], batch["id"][-1]
        raise DataError(f"spec.tokenizer: among documents {first} to {last}: {error}") from error


def _batches(job: Job, index: int, removed: Rows) -> Iterator[pa.Table]:
    """The documents of a part, less the rows `removed`, some at a time: the batches in which they were written."""
    batches = work.remaining(job.store(), texts_path(job, index), ["id", "source", "text", "digest"], removed)
    return filter(len, batches)


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
