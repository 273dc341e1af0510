"""Lines or paragraphs that an earlier document held, wherever that is in the dataset.

As in CCNet (Wenzek et al. 2020, arXiv:1911.00359, section 3.1), which compares paragraphs without case; here they are
also compared without white space around and within, and the first document that holds one keeps it. A piece that occurs
twice in one document is that document's affair (see `gopherRepetition`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import xxhash

from kindling_api.v1alpha1.dataset_build import LineDuplicates

_BETWEEN_PARAGRAPHS = re.compile(r"\n[ \t]*\n\s*")


def piece_hashes(text: str, spec: LineDuplicates) -> set[int]:
    """64-bit hashes of the text's lines or paragraphs that are long enough."""
    return {_hash(piece) for piece in _pieces(text, spec) if len(piece) >= spec.min_length}


def without_duplicates(text: str, place: int, first: Mapping[int, int], spec: LineDuplicates) -> tuple[str, list[str]]:
    """The text without pieces that an earlier document holds, and those pieces.

    Args:
        text: What it is taken from.
        place: The document's place in the order of the sources.
        first: For hashes by `piece_hashes`, the place of the first document; those that are missing occur in one alone.
        spec: How the text is cut, and how long a piece must be.
    """
    kept: list[str] = []
    removed: list[str] = []
    for piece in _pieces(text, spec):
        is_first = len(piece) < spec.min_length or first.get(_hash(piece), place) == place
        (kept if is_first else removed).append(piece)
    return (_joint(spec).join(kept), removed) if removed else (text, [])


def _pieces(text: str, spec: LineDuplicates) -> list[str]:
    return text.split("\n") if spec.unit == "line" else _BETWEEN_PARAGRAPHS.split(text)


def _joint(spec: LineDuplicates) -> str:
    return "\n" if spec.unit == "line" else "\n\n"


def _hash(piece: str) -> int:
    return xxhash.xxh3_64_intdigest(" ".join(piece.split()).lower().encode())
