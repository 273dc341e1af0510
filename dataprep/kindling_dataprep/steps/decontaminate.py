"""Evaluation sets and the training texts that share an n-gram of words with them.

As for GPT-3 (Brown et al. 2020, arXiv:2005.14165, appendix C), words are compared without case and punctuation, and 13
in a row are taken for a leak; a whole document goes rather than 200 characters around the match. A text with fewer
words than the n-gram cannot be recognised.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from kindling_dataprep.records import InputFile
from kindling_dataprep.steps.mix import GOLDEN, mix
from kindling_dataprep.steps.unpack import unpacked
from kindling_dataprep.steps.words import plain_words_of

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """The n-grams of one evaluation set."""

    name: str
    """As the spec spells its URI."""
    ngram: int
    hashes: Hashes
    """Sorted, each once."""


def ngram_hashes(text: str, ngram: int) -> Hashes:
    """[max(0, words - ngram + 1)] A 64-bit hash of each run of `ngram` words, in the order of the text.

    A run's hash is the sum of its words' hashes, each times an odd number that stands for its place.
    """
    words = plain_words_of(text)
    count = len(words) - ngram + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(word.encode()) for word in words), np.uint64, len(words))
    factors = mix(np.arange(1, ngram + 1, dtype=np.uint64) * GOLDEN) | np.uint64(1)
    total = np.zeros(count, dtype=np.uint64)
    for place in range(ngram):
        total += hashes[place : place + count] * factors[place]
    return mix(total)


def evaluation_set(name: str, texts: Iterator[str], ngram: int) -> EvaluationSet:
    """What there is to recognise of `texts`."""
    found = [ngram_hashes(text, ngram) for text in texts]
    return EvaluationSet(name, ngram, np.unique(np.concatenate([np.empty(0, np.uint64), *found])))


def leaks(text: str, sets: Sequence[EvaluationSet]) -> dict[str, int]:
    """By the name of the evaluation set, how many n-grams of the text are in it; nothing where none is."""
    by_size = {size: ngram_hashes(text, size) for size in {each.ngram for each in sets}}
    counts = {each.name: _shared(by_size[each.ngram], each.hashes) for each in sets}
    return {name: count for name, count in counts.items() if count}


def _shared(hashes: Hashes, known: Hashes) -> int:
    if not len(hashes) or not len(known):
        return 0
    places = np.searchsorted(known, hashes).clip(max=len(known) - 1)
    return int((known[places] == hashes).sum())


def evaluation_texts(stream: BinaryIO, file: InputFile) -> Iterator[str]:
    """The texts of an evaluation set: all strings of each record, one by one; of other files, all that is in them.

    Raises:
        ValueError: a line is no JSON.
        OSError, pa.ArrowException: the file is damaged.
    """
    if file.format == "parquet":
        table = pq.ParquetFile(pa.PythonFile(stream, mode="r"))
        for batch in table.iter_batches(batch_size=64):
            yield from _strings(batch.to_pylist())
    elif file.format == "jsonl":
        for line in unpacked(stream, file):
            yield from _strings(json.loads(line) if line.strip() else None)
    else:
        yield unpacked(stream, file).read().decode("utf-8", errors="replace")


def _strings(value: Any) -> Iterator[str]:
    """The strings in a JSON value, in its order; keys are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)
