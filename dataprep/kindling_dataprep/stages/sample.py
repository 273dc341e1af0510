"""What a tokenizer learns from: the documents that stay, or as many of them as are asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kindling_dataprep.output import order, work
from kindling_dataprep.output.order import Hashes, Integers
from kindling_dataprep.stages.corpus import Corpus, Rows
from kindling_dataprep.stages.pii import texts_path


def sampled(corpus: Corpus, removed: Rows, most: int) -> Iterator[list[str]]:
    """The texts of about `most` bytes of the documents but `removed`, some at a time; see `counts`."""
    content, weights = _documents(corpus)
    sizes = np.concatenate([column.to_numpy() for column in corpus.column("bytes")])
    sizes[removed] = 0
    taken = counts(content, weights, sizes, most)
    for part in range(corpus.parts):
        of_part = taken[corpus.starts[part] : corpus.starts[part + 1]]
        rows = np.flatnonzero(of_part)
        for first, batch in work.row_groups(corpus.job.store(), texts_path(corpus.job, part), ["text"], rows):
            yield batch["text"].take(np.repeat(np.arange(len(batch)), of_part[first : first + len(batch)])).to_pylist()


def counts(content: Hashes, weights: NDArray[np.float64], sizes: Integers, most: int) -> Integers:
    """How often the sample holds each document: as often as the result (see `Source.weight`), or where this is more
    than `most` bytes, so much more seldom, by the hash of its `content`; and once at least one document.

    Documents of size 0 have no place in it.
    """
    total = float((weights * sizes).sum())
    taken = order.copies(content, weights * (most / total if total > most else 1.0))
    taken[sizes == 0] = 0
    if total and not taken.any():
        taken[np.flatnonzero(sizes)[np.argmin(content[sizes > 0])]] = 1
    return taken


def _documents(corpus: Corpus) -> tuple[Hashes, NDArray[np.float64]]:
    """The hashes of all documents, and the weights of their sources."""
    sources = np.concatenate([column.to_numpy() for column in corpus.column("source")])
    digests = b"".join(digest[:8] for column in corpus.column("digest") for digest in column.to_pylist())
    weights = np.array([source.weight for source in corpus.job.spec.sources])
    return np.frombuffer(digests, ">u8").astype(np.uint64), weights[sources]
