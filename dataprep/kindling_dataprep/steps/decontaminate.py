"""Evaluation sets and the training texts that share an n-gram of words with them.

As for GPT-3 (Brown et al. 2020, arXiv:2005.14165, appendix C), words are compared without case and punctuation, 13 in a
row are taken for a leak, and a shorter text is recognised where all of it recurs and it has at least 8 words; a whole
document goes rather than 200 characters around the match. What is shorter than that cannot be recognised. In a text
of a script without spaces two or four characters stand for a word (see `scripts`): 26 Chinese characters are 13 words.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from kindling_dataprep.records import InputFile
from kindling_dataprep.steps.char_spans import Hashes, hashes_of
from kindling_dataprep.steps.content import whole_content
from kindling_dataprep.steps.parquet_reader import ParquetReader
from kindling_dataprep.steps.scripts import characters_per_word
from kindling_dataprep.steps.shingles import word_hashes
from kindling_runtime.splitmix import mix

FEWEST_WORDS = 8
"""Of a text that is recognised as a whole; GPT-3 used no n-gram of fewer words."""
_LONGEST_LINE = 1 << 40
"""Bytes: no bound, for an evaluation set is read as a whole."""


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """What there is to recognise of one evaluation set."""

    name: str
    """The set's URI, as the spec has it."""
    hashes: Mapping[int, Hashes]
    """By the number of words or characters in a run, the hashes of the runs, sorted, each once."""
    texts: int
    """How many texts it has."""
    short: int
    """How many of them are too short to be recognised."""


def fewest_words(ngram: int) -> int:
    """Of a text that can be recognised."""
    return min(ngram, FEWEST_WORDS)


def run_hashes(words: Hashes, length: int) -> Hashes:
    """[max(0, words - length + 1)] A 64-bit hash of each run of `length` words, which `word_hashes` gives."""
    starts = np.arange(max(0, len(words) - length + 1))
    return mix(hashes_of(np.append(np.uint64(0), mix(words)), starts, starts + length))


def evaluation_set(name: str, texts: Sequence[str], ngram: int) -> EvaluationSet:
    """What there is to recognise of `texts`: their n-grams, and of shorter ones the whole."""
    found: dict[int, list[Hashes]] = defaultdict(list)
    short = 0
    for text, words in zip(texts, _words_of_each(texts), strict=True):
        characters = characters_per_word(text)
        length = min(len(words), ngram * characters)
        if length < fewest_words(ngram) * characters:
            short += 1
        else:
            found[length].append(run_hashes(words, length))
    hashes = {length: np.unique(np.concatenate(found[length])) for length in sorted(found)}
    return EvaluationSet(name, hashes, len(texts), short)


def leaks(texts: Sequence[str], sets: Sequence[EvaluationSet]) -> list[dict[str, int]]:
    """For each text, by the name of the evaluation set, how many of its runs are in it; nothing where none is."""
    lengths = {length for each in sets for length in each.hashes}
    return [_leaks(words, sets, lengths) for words in _words_of_each(texts)]


def _leaks(words: Hashes, sets: Sequence[EvaluationSet], lengths: set[int]) -> dict[str, int]:
    runs = {length: run_hashes(words, length) for length in lengths if length <= len(words)}
    counts = {
        each.name: sum(_shared(runs[length], known) for length, known in each.hashes.items() if length in runs)
        for each in sets
    }
    return {name: count for name, count in counts.items() if count}


def _words_of_each(texts: Sequence[str]) -> list[Hashes]:
    words, counts = word_hashes(texts)
    return np.split(words, np.cumsum(counts)[:-1]) if texts else []


def _shared(hashes: Hashes, known: Hashes) -> int:
    places = np.searchsorted(known, hashes).clip(max=len(known) - 1)
    return int((known[places] == hashes).sum())


def evaluation_texts(stream: BinaryIO, file: InputFile) -> Iterator[str]:
    """The texts of an evaluation set: all strings of each record, one by one; of other files, all that is in them.

    Raises:
        ValueError: a line is no JSON.
        OSError: the file is damaged.
    """
    if file.format == "parquet":
        with ParquetReader(stream, file.size) as table:
            table.open()
            for group in range(len(table.groups)):
                for batch in table.batches(group, table.schema.names):
                    yield from _strings(batch.to_pylist())
        return
    content = whole_content(stream, file)
    if file.format == "jsonl":
        while line := content.readline(_LONGEST_LINE):
            yield from _strings(json.loads(line) if line.strip() else None)
    else:
        yield content.read(_LONGEST_LINE).decode("utf-8", errors="replace")
    if content.gap is not None:
        raise OSError(content.gap.why)


def _strings(value: Any) -> Iterator[str]:
    """The strings in a JSON value, in its order; keys are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)
