"""Candidates for near-duplicates by MinHash: signatures, LSH bands, and the pairs that share a band.

Two documents are near-duplicates when the Jaccard similarity of their sets of word shingles reaches the threshold.
MinHash (Broder 1997) and banding (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3) only propose
pairs: every pair proposed is verified on the shingle sets themselves (`shingles.jaccards`), so the threshold is exact
and the bands can be chosen for recall alone.

The functions stand apart because signatures are computed wherever the texts are, and pairs band by band.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindling_api.v1alpha1.dataset_build import MinHash
from kindling_dataprep.steps.char_spans import Hashes
from kindling_dataprep.steps.shingles import Shingles, shingles
from kindling_runtime.splitmix import GOLDEN, mix

Signatures = NDArray[np.uint32]

PERMUTATION_SEED = 1
"""datasketch's default."""

NEIGHBOURS = 16
"""In an LSH bucket each document is paired with this many that follow it, and with the bucket's first."""

BLOCK = 8192
"""Hashes that are permuted at a time; below numpy's buffer size, of as many elements, its loops are not vectorised."""
AT_ONCE = 32
"""Permutations of a block, so that their values stay in a core's cache."""


BANDS, ROWS = 20, 6
"""Unless the spec asks for others."""
_THEIR_THRESHOLD = 0.8
"""At and above it they find 99.77 % of the pairs and more."""
_PERMUTATIONS = 128
"""datasketch's default."""
_WEIGHTS = (0.01, 0.99)
"""Of false positives and false negatives: the former cost a comparison, the latter a duplicate that stays."""


@lru_cache
def banding(spec: MinHash) -> tuple[int, int]:
    """Bands, and rows in each: as given, or for a low threshold those that datasketch's `MinHashLSH` chooses (it
    minimises the weighted areas under the curve of both errors; Leskovec et al., section 3.4)."""
    if spec.bands is not None or spec.rows is not None or spec.threshold >= _THEIR_THRESHOLD:
        return spec.bands or BANDS, spec.rows or ROWS
    import datasketch  # not above: it takes long to load, and few builds need it

    lsh = datasketch.MinHashLSH(threshold=spec.threshold, num_perm=_PERMUTATIONS, weights=_WEIGHTS)
    return lsh.b, lsh.r


def permutations_of(spec: MinHash) -> int:
    """Values of a signature."""
    bands, rows = banding(spec)
    return bands * rows


def signatures(texts: Sequence[str], spec: MinHash) -> Signatures:
    """[texts, bands · rows] The MinHash signatures of the texts' shingles."""
    return signatures_of(shingles(texts, spec.shingle), permutations_of(spec))


def signatures_of(sets: Shingles, permutations: int) -> Signatures:
    """[texts, permutations] Bit for bit those of datasketch 2's default scheme, `affine32`, for the same hashes.

    The lower 32 bits of a hash are mixed by MurmurHash3's finaliser to h, and permutation k maps them to a_k · h + b_k
    mod 2³² with a_k odd; the signature is each permutation's smallest value over the text.
    """
    factors, terms = _permutations(permutations)
    smallest = np.full((permutations, len(sets.starts) - 1), 0xFFFFFFFF, dtype=np.uint32)
    values = np.empty((AT_ONCE, BLOCK), dtype=np.uint32)
    for begin in range(0, len(sets.hashes), BLOCK):
        hashes = _mixed(sets.hashes[begin : begin + BLOCK].astype(np.uint32))
        first = np.searchsorted(sets.starts, begin, side="right") - 1
        last = np.searchsorted(sets.starts, begin + len(hashes))
        starts = np.maximum(sets.starts[first:last] - begin, 0)
        for some in (slice(at, at + AT_ONCE) for at in range(0, permutations, AT_ONCE)):
            of_texts = smallest[some, first:last]
            permuted = values[: len(of_texts), : len(hashes)]
            np.multiply(factors[some], hashes, out=permuted)
            np.add(permuted, terms[some], out=permuted)
            np.minimum(of_texts, np.minimum.reduceat(permuted, starts, axis=1), out=of_texts)
    return np.ascontiguousarray(smallest.T)


def _mixed(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The finaliser of MurmurHash3 for 32 bits (`fmix32`)."""
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def _permutations(count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """([count, 1], [count, 1]) The factors a (odd) and terms b that datasketch draws for `count` permutations."""
    generator = np.random.RandomState(PERMUTATION_SEED)
    factors = generator.randint(0, 1 << 31, (count, 1), dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, generator.randint(0, 1 << 32, (count, 1), dtype=np.uint32)


def band_keys(signature: Signatures, spec: MinHash) -> Hashes:
    """[texts, bands] A 64-bit key for each band: two texts share a bucket of a band where they share its key.

    Rows are absorbed one after the other, as steps of SplitMix64.
    """
    rows = signature.reshape(len(signature), *banding(spec)).astype(np.uint64)
    keys = np.zeros(rows.shape[:2], dtype=np.uint64)
    for row in range(rows.shape[2]):
        keys = mix((keys ^ rows[:, :, row]) + GOLDEN)
    return keys


def bucket_pairs(keys: Hashes, texts: NDArray[np.int64]) -> Hashes:
    """Distinct pairs i < j of the sorted `texts` that share a bucket of one band, as i · 2³² + j, sorted.

    `keys` [texts] are the keys of that band. A bucket of n texts has n² / 2 pairs, too many where a page was copied a
    million times. Each text is therefore paired with the NEIGHBOURS texts after it and with the bucket's first: all
    pairs of a small bucket, at most 17 · n of a large one. A large bucket of true duplicates still becomes one cluster,
    since neighbours chain it together.
    """
    order = np.argsort(keys, kind="stable")
    column = keys[order]
    numbers = texts[order]
    begins = np.append(True, column[1:] != column[:-1])[: len(keys)]
    first = np.maximum.accumulate(np.where(begins, np.arange(len(keys)), 0))
    followers = np.flatnonzero(~begins)
    found = [packed(numbers[first[followers]], numbers[followers])]
    for lag in range(1, NEIGHBOURS + 1):
        left = np.flatnonzero(column[lag:] == column[:-lag])
        if not len(left):
            break
        found.append(packed(numbers[left], numbers[left + lag]))
    return np.unique(np.concatenate(found))


def packed(one: NDArray[Any], other: NDArray[Any]) -> Hashes:
    """[pairs] Pairs of numbers below 2³², each as one number; they sort by the first, and then by the second."""
    return (one.astype(np.uint64) << np.uint64(32)) | other.astype(np.uint64)


def unpacked(pairs: Hashes) -> NDArray[np.int64]:
    """[pairs, 2] The numbers that `packed` was given."""
    return np.stack([pairs >> np.uint64(32), pairs & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)
