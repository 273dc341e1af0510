"""Exact duplicates: documents whose texts differ in nothing that a reader would notice."""

from __future__ import annotations

import unicodedata

import numpy as np
import xxhash
from numpy.typing import NDArray


def text_digest(text: str) -> bytes:
    """16 bytes that are equal for equal texts: XXH3-128 of the text in NFC, case-folded, with white space collapsed.

    Case folding can undo the normal form, which is why NFC is applied after it too (Unicode standard, section 3.13,
    D145).
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return xxhash.xxh3_128_digest(" ".join(folded.split()).encode())


def first_of_equals(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
    """[documents] For each the first document with its digest, which is itself where there is none before it.

    `digests` [documents, 2] are the halves of `text_digest`.
    """
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    begins = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))[: len(order)]
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    return first
