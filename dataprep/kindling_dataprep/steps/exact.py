"""Exact duplicates: documents whose texts differ in nothing that a reader would notice."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import xxhash


def text_digest(text: str) -> bytes:
    """16 bytes that are equal for equal texts: XXH3-128 of the text in NFC, case-folded, with white space collapsed.

    Case folding can undo the normal form, which is why NFC is applied after it too (Unicode standard, section 3.13,
    D145).
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return xxhash.xxh3_128_digest(" ".join(folded.split()).encode())


def exact_duplicates(ids: Iterable[str], digests: Iterable[bytes]) -> dict[str, str]:
    """The documents to remove, each with the one that stays: the first in the order given."""
    first: dict[bytes, str] = {}
    removed: dict[str, str] = {}
    for id, digest in zip(ids, digests, strict=True):
        kept = first.setdefault(digest, id)
        if kept != id:
            removed[id] = kept
    return removed
