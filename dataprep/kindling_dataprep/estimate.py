"""What a build would make and how long it would take, from a sample of its sources that goes through its own steps.

Where the sources are small, the sample is all of them. Else it is pieces from evenly spaced places, as many as a little
processor time is enough for, and counts are scaled by bytes as stored. Duplicates are looked for within the sample: of
large sources, more documents may be some.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec, MinHash
from kindling_dataprep.executors import workers_for
from kindling_dataprep.executors.tasks import SMALLEST_TASK
from kindling_dataprep.records import Document, InputFile, Removal, Span
from kindling_dataprep.stages.write import arrange
from kindling_dataprep.steps.clean_batch import clean_batch
from kindling_dataprep.steps.clusters import clusters
from kindling_dataprep.steps.exact import text_digest
from kindling_dataprep.steps.minhash import band_keys, banding, bucket_pairs, signatures, unpacked
from kindling_dataprep.steps.parquet_reader import DamagedError, ParquetReader
from kindling_dataprep.steps.read import read, store_uri
from kindling_dataprep.steps.unpack import is_packed
from kindling_dataprep.tokenize import tokenizer
from kindling_dataprep.tokenize.pretrained import fetch
from kindling_storage.globs import OpenStore

SAMPLE_BYTES = 8 << 20
"""Of all sources, as stored."""
PIECES = 128
SAMPLE_SECONDS = 1.5
"""Processor time in which pieces are read and cleaned, where there are many."""
SURE_BYTES = 2 << 20
"""As stored: however long they take, so many are looked at."""
_CUT_AT_LINES = ("jsonl", "csv")
"""Formats that may be read from any line on."""
_LONGEST_LINE = 4 << 20
_PAIRS_AT_ONCE = 1 << 14
_BATCH = 512

START_SECONDS = 8.0
"""From a build's first instruction to its first document, and from its last to its manifest and report."""
WRITING = 2.0
"""The time of a build's work over that of the steps alone: parts are written, read again, and put into shards."""


@dataclass(frozen=True)
class BuildEstimate:
    """What a build would make."""

    documents: int
    """Read."""
    kept: int
    tokens: int
    """Of the training part."""
    vocab_size: int
    bytes_per_token: float
    seconds: float
    sampled: float
    """The part of the sources that was looked at, by bytes as stored: 1 where it was all of them."""


@dataclass(frozen=True)
class Piece:
    """A part of a file."""

    span: Span
    stored: float
    """Bytes of the file that it stands for."""
    records: int | None = None
    """How many of its records are read; None for all."""


def estimate(spec: DatasetBuildSpec, files: Sequence[InputFile], open_store: OpenStore) -> BuildEstimate:
    """What a build of these files would make, and how long it would take here.

    Raises:
        SpecError, DataError: as the build would.
        StorageError: a store cannot be reached, or refuses.
    """
    began = time.perf_counter()
    total = sum(file.size for file in files)
    pieces = sample(files, total, open_store)
    stored, records, cleaned_documents = _looked_at(pieces, spec, open_store, whole=total <= SAMPLE_BYTES)
    sampled = stored / total
    documents = _unique(cleaned_documents, spec)
    cleaned = time.perf_counter()
    encoder, counts, training = _tokens(spec, [document.text for document in documents], open_store, whole=sampled == 1)
    scale = 1 / sampled
    tokens = _trained_on(spec, documents, counts) if documents else 0
    size = sum(len(document.text.encode()) for document in documents)
    steps = cleaned - began + time.perf_counter() - cleaned - training
    tasks = max(1, round(total / SMALLEST_TASK))
    workers = workers_for(spec.engine.workers, tasks, total)
    return BuildEstimate(
        documents=round(records * scale),
        kept=round(len(documents) * scale),
        tokens=round(tokens * scale),
        vocab_size=encoder.vocab_size,
        bytes_per_token=size / max(1, sum(counts)),
        seconds=START_SECONDS + WRITING * steps * scale / workers + training * scale,
        sampled=sampled,
    )


def sample(files: Sequence[InputFile], total: int, open_store: OpenStore) -> list[Piece]:
    """All of the files, or `PIECES` pieces of many."""
    there = [file for file in files if file.size]
    if total <= SAMPLE_BYTES:
        return [Piece(Span.whole(file), file.size) for file in there]
    ends, found = list(accumulate(file.size for file in there)), dict[tuple[int, int], Piece]()
    for piece in range(PIECES):
        place = total * piece // PIECES
        number = bisect_right(ends, place)
        left, offset = SAMPLE_BYTES / PIECES, place - (ends[number] - there[number].size)
        while left > 0 and number < len(there):
            one = _piece(there[number], offset, int(left), open_store)
            if one.stored:
                found.setdefault((number, one.span.start), one)
            left, number, offset = left - one.stored, number + 1, 0
    return list(found.values())


def _piece(file: InputFile, offset: int, wanted: int, open_store: OpenStore) -> Piece:
    """Some of a file, near the offset where it can be cut there; of Parquet, the first rows of the group that is there.

    Row groups are taken to be of one size.
    """
    if file.format == "parquet":
        with open_store(store_uri(file.uri)).open(file.path) as stream, ParquetReader(stream, file.size) as reader:
            try:
                reader.open()
            except DamagedError:
                return Piece(Span.whole(file), file.size)  # which is soon read
            group = offset * len(reader.groups) // file.size
            rows = reader.groups[group].rows if reader.groups else 0
        size = file.size / max(1, len(reader.groups))
        taken = min(rows, math.ceil(rows * wanted / size))
        return Piece(Span(file, group, group + 1, 1, round(size)), size * taken / max(1, rows), taken)
    start, stop = 0, min(file.size, wanted)
    if file.format in _CUT_AT_LINES and not is_packed(file.path):
        with open_store(store_uri(file.uri)).open(file.path) as stream:
            start, stop = (_line_from(stream, place, file.size) for place in (offset, offset + wanted))
    return Piece(Span(file, start, None if stop == file.size else stop, 1, stop - start), stop - start)


def _line_from(stream: BinaryIO, place: int, size: int) -> int:
    """Where the first line begins that begins at a byte or after it."""
    if place in range(1, size):
        stream.seek(place - 1)
        return place - 1 + len(stream.readline(_LONGEST_LINE))
    return min(place, size)


def _records(piece: Piece, spec: DatasetBuildSpec, open_store: OpenStore) -> Iterator[Document | Removal]:
    """The records of a piece, but for one that its end cuts through."""
    span = piece.span
    read_there = islice(read(span, spec.sources[span.file.source], open_store=open_store), piece.records)
    found = [each for each in read_there if isinstance(each, Document | Removal)]
    if span.stop is not None and found and isinstance(found[-1], Removal):
        found = found[:-1]
    yield from found


def _looked_at(
    pieces: Sequence[Piece], spec: DatasetBuildSpec, open_store: OpenStore, *, whole: bool
) -> tuple[float, int, list[Document]]:
    """For how many bytes, as stored, the pieces stand that were read, their records, and the documents that the rules
    leave."""
    began, stored, records, kept = time.process_time(), 0.0, 0, list[Document]()
    groups: list[Sequence[Piece]] = [pieces] if whole else [[pieces[number]] for number in spread(len(pieces))]
    for group in groups:
        if stored >= SURE_BYTES and time.process_time() - began > SAMPLE_SECONDS:
            break
        found = [record for piece in group for record in _records(piece, spec, open_store)]
        for first in range(0, len(found), _BATCH):
            kept += clean_batch(found[first : first + _BATCH], spec).kept
        stored, records = stored + sum(piece.stored for piece in group), records + len(found)
    return stored, records, kept


def spread(count: int) -> list[int]:
    """The numbers below `count` in an order of which every beginning is spread over all: by their bits from the lowest.

    >>> spread(8)
    [0, 4, 2, 6, 1, 5, 3, 7]
    """
    width = max(1, (count - 1).bit_length())
    return sorted(range(count), key=lambda number: f"{number:0{width}b}"[::-1])


def _unique(kept: list[Document], spec: DatasetBuildSpec) -> list[Document]:
    if spec.deduplicate.exact:
        kept = list({text_digest(document.text): document for document in reversed(kept)}.values())[::-1]
    if spec.deduplicate.min_hash is not None and kept:
        kept = _distinct(kept, spec.deduplicate.min_hash)
    return kept


def _distinct(documents: list[Document], spec: MinHash) -> list[Document]:
    """One of each cluster of near-duplicates, as the signatures see them: the longest."""
    found = signatures([document.text for document in documents], spec)
    keys, numbers = band_keys(found, spec), np.arange(len(documents))
    pairs = np.unique(np.concatenate([bucket_pairs(keys[:, band], numbers) for band in range(banding(spec)[0])]))
    ends = unpacked(pairs)
    shares = [
        (found[some[:, 0]] == found[some[:, 1]]).mean(axis=1)
        for some in np.array_split(ends, len(ends) // _PAIRS_AT_ONCE + 1)
    ]
    alike = np.concatenate(shares) >= spec.threshold
    longest: dict[int, int] = {}
    for number, cluster in enumerate(clusters(ends[alike], len(documents)).tolist()):
        if cluster not in longest or len(documents[number].text) > len(documents[longest[cluster]].text):
            longest[cluster] = number
    return [documents[number] for number in sorted(longest.values())]


def _tokens(
    spec: DatasetBuildSpec, texts: list[str], open_store: OpenStore, *, whole: bool
) -> tuple[tokenizer.TextEncoder, list[int], float]:
    """A tokenizer, the tokens of each text, and how long the tokenizer took to make.

    One that is trained on a sample knows the sample better than the rest, and less of the rest than one trained on all:
    where the sample is a part, it learns from every other text, and what it makes of both halves is taken for the rest.
    """
    chosen = spec.tokenizer.from_
    existing = fetch(chosen, open_store) if chosen is not None else None
    trained_on = texts if whole or spec.tokenizer.train is None or len(texts) < 2 else texts[::2]
    began = time.perf_counter()
    encoder = tokenizer.make(spec.tokenizer, [trained_on] if spec.tokenizer.char is None else [texts], existing)
    made = time.perf_counter() - began
    return encoder, [len(ids) for ids in encoder.encode(texts)], made * len(texts) / max(1, len(trained_on))


def _trained_on(spec: DatasetBuildSpec, documents: Sequence[Document], counts: Sequence[int]) -> int:
    table = pa.table(
        {
            "id": [document.id for document in documents],
            "source": pa.array([document.source for document in documents], pa.int32()),
            "digest": [text_digest(document.text) for document in documents],
            "tokens": pa.array(counts, pa.int64()),
        }
    )
    train, _ = arrange(spec, table)
    return int(train.length.sum())
