"""Near-duplicates by MinHash: signatures, LSH bands, exact verification, clusters.

Two documents are near-duplicates when the Jaccard similarity of their sets of word shingles reaches the threshold
(Broder 1997, "On the resemblance and containment of documents"). MinHash and banding (Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", chapter 3) only propose pairs: every pair proposed is verified on the shingle sets
themselves, so the threshold is exact and the bands can be chosen for recall alone.

The functions stand apart because signatures are computed wherever the texts are, and clustering in one place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kindling_api.v1alpha1.dataset_build import MinHash
from kindling_dataprep.steps.mix import GOLDEN, mix
from kindling_dataprep.steps.words import plain_words_of

PERMUTATION_SEED = 1
"""datasketch's default."""

NEIGHBOURS = 16
"""In an LSH bucket each document is paired with this many that follow it, and with the bucket's first."""


def shingles(text: str, shingle: int) -> set[str]:
    """Each run of `shingle` consecutive words, joined by spaces; a text with fewer words is, as it is, one shingle."""
    words = plain_words_of(text)
    if len(words) < shingle:
        return {" ".join(text.split())}
    return {" ".join(words[i : i + shingle]) for i in range(len(words) - shingle + 1)}


def shingle_hashes(text: str, shingle: int) -> NDArray[np.uint64]:
    """[n ≥ 1] The set of a text's shingles, as sorted 64-bit hashes.

    The hash is the first eight bytes of SHA-1, whose lower half is the 32-bit hash that datasketch gives a MinHash by
    default.
    """
    encoded = [each.encode() for each in shingles(text, shingle)]
    digests = b"".join([hashlib.sha1(each, usedforsecurity=False).digest()[:8] for each in encoded])
    return np.unique(np.frombuffer(digests, dtype="<u8"))


def jaccard(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    """|A ∩ B| / |A ∪ B| of two sets from `shingle_hashes`."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def signatures(texts: Sequence[str], spec: MinHash) -> NDArray[np.uint32]:
    """[texts, bands · rows] MinHash signatures, bit for bit those of datasketch 2's default scheme, `affine32`."""
    return signatures_of([shingle_hashes(text, spec.shingle) for text in texts], spec)


def signatures_of(sets: Sequence[NDArray[np.uint64]], spec: MinHash) -> NDArray[np.uint32]:
    """[sets, bands · rows] The same, from shingle sets that are at hand.

    A 32-bit hash h is mixed by MurmurHash3's finaliser, and permutation k maps it to a_k · h + b_k mod 2³² with a_k
    odd; the signature is each permutation's smallest value over the set.
    """
    permutations = spec.bands * spec.rows
    result = np.empty((len(sets), permutations), dtype=np.uint32)
    if not sets:
        return result
    starts = np.cumsum([0] + [len(each) for each in sets[:-1]])
    hashes = _mixed((np.concatenate(sets) & np.uint64(0xFFFFFFFF)).astype(np.uint32))
    factors, terms = _permutations(permutations)
    for k in range(permutations):
        result[:, k] = np.minimum.reduceat(factors[k] * hashes + terms[k], starts)
    return result


def _mixed(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The finaliser of MurmurHash3 for 32 bits (`fmix32`)."""
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def _permutations(count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """([count], [count]) The factors a (odd) and terms b that datasketch draws for `count` permutations."""
    generator = np.random.RandomState(PERMUTATION_SEED)
    factors = generator.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, generator.randint(0, 1 << 32, count, dtype=np.uint32)


def band_keys(signature: NDArray[np.uint32], spec: MinHash) -> NDArray[np.uint64]:
    """[texts, bands] A 64-bit key for each band; two texts share a bucket where they share a key.

    The band's number is part of the key, so all bands may be thrown into one table. Rows are absorbed one after the
    other, as steps of SplitMix64.
    """
    rows = signature.reshape(len(signature), spec.bands, spec.rows).astype(np.uint64)
    keys = np.broadcast_to(np.arange(1, spec.bands + 1, dtype=np.uint64), rows.shape[:2])
    for row in range(spec.rows):
        keys = mix((keys ^ rows[:, :, row]) + GOLDEN)
    return keys


def candidate_pairs(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """[pairs, 2] Distinct pairs i < j of texts that share a bucket, from `band_keys` [texts, bands], sorted.

    A bucket of n texts has n² / 2 pairs, too many where a page was copied a million times. Each text is therefore
    paired with the NEIGHBOURS texts after it and with the bucket's first: all pairs of a small bucket, at most 17 · n
    of a large one. A large bucket of true duplicates still becomes one cluster, since neighbours chain it together.
    """
    count = len(keys)
    found = [np.empty(0, dtype=np.int64)]  # pairs as i · count + j, which sort as one number
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band], kind="stable").astype(np.int64)
        column = keys[order, band]
        begins = np.append(True, column[1:] != column[:-1])[:count]
        first = np.maximum.accumulate(np.where(begins, np.arange(count), 0))
        followers = np.flatnonzero(~begins)
        found.append(order[first[followers]] * count + order[followers])
        for lag in range(1, NEIGHBOURS + 1):
            left = np.flatnonzero(column[lag:] == column[:-lag])
            if not len(left):
                break
            found.append(order[left] * count + order[left + lag])
    return np.stack(np.divmod(np.unique(np.concatenate(found)), max(1, count)), axis=1)


def clusters(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """[count] The number of each text's connected component, where `pairs` [m, 2] are the edges."""
    edges = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, labels = connected_components(edges, directed=False)
    return np.asarray(labels, dtype=np.int64)


def near_duplicates(
    ids: Sequence[str],
    lengths: Sequence[int],
    pairs: NDArray[np.int64],
    jaccards: NDArray[np.float64],
    spec: MinHash,
) -> dict[str, tuple[str, float]]:
    """The documents to remove, each with the one that stays and a verified similarity.

    Of every cluster of verified pairs the longest document stays, the first in the order of `ids` among equals. The
    similarity is that of the pair with the kept document; where the two hang together only through others, it is that
    of the closest of those.

    Args:
        ids: The documents, in global order.
        lengths: Their lengths, in characters.
        pairs: [m, 2] Candidates, as positions in `ids`.
        jaccards: [m] Their exact similarities; pairs below `spec.threshold` are ignored.
        spec: Where the threshold is.
    """
    duplicates = jaccards >= spec.threshold
    pairs, jaccards = pairs[duplicates], jaccards[duplicates]
    labels = clusters(pairs, len(ids))
    kept: dict[int, int] = {}
    for i in sorted(set(pairs.ravel().tolist()), key=lambda i: (-lengths[i], i)):
        kept.setdefault(int(labels[i]), i)
    closest: dict[int, tuple[bool, float]] = {}
    for (i, j), similarity in zip(pairs.tolist(), jaccards.tolist(), strict=True):
        for one, other in ((i, j), (j, i)):
            is_kept = kept[int(labels[one])] == other
            closest[one] = max(closest.get(one, (False, 0.0)), (is_kept, similarity))
    return {
        ids[i]: (ids[kept[int(labels[i])]], similarity)
        for i, (_, similarity) in sorted(closest.items())
        if kept[int(labels[i])] != i
    }
