"""Signatures are datasketch's; every pair at or above the threshold is found, and nothing below it is removed."""

import hashlib
import sysconfig
from collections.abc import Sequence
from functools import reduce
from itertools import combinations
from pathlib import Path

import datasketch
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindling_api.v1alpha1.dataset_build import MinHash
from kindling_dataprep.steps.clusters import Duplicates, clusters, near_duplicates
from kindling_dataprep.steps.minhash import (
    band_keys,
    banding,
    bucket_pairs,
    permutations_of,
    signatures,
    signatures_of,
    unpacked,
)
from kindling_dataprep.steps.shingles import Shingles, jaccards, shingle_set, shingles

LICENCES = Path("/usr/share/common-licenses")


def standard_library(count: int) -> list[str]:
    return [
        path.read_text(errors="replace") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:count]
    ]


def find_near_duplicates(texts: Sequence[str], spec: MinHash) -> Duplicates:
    """All the functions in a row, as a build calls them."""
    sets = shingles(texts, spec.shingle)
    keys = band_keys(signatures_of(sets, permutations_of(spec)), spec)
    numbers = np.arange(len(texts))
    pairs = unpacked(reduce(np.union1d, (bucket_pairs(band, numbers) for band in keys.T)))
    similarities = jaccards(sets, pairs)
    verified = similarities >= spec.threshold
    return near_duplicates([np.array(list(map(len, texts)))], pairs[verified], similarities[verified])


@pytest.mark.parametrize("permutations", [1, 117, 120, 256])
def test_signatures_are_those_of_datasketch(permutations: int) -> None:
    sets = [sorted(shingle_set(text, 5)) for text in standard_library(6)]
    sketches = [datasketch.MinHash(num_perm=permutations) for _ in sets]
    for sketch, shingles_of_one in zip(sketches, sets, strict=True):
        assert sketch.scheme == "affine32"
        sketch.update_batch([shingle.encode() for shingle in shingles_of_one])
    hashes = [[int.from_bytes(hashlib.sha1(each.encode()).digest()[:4], "little") for each in one] for one in sets]
    together = Shingles(
        np.concatenate([np.array(one, dtype=np.uint64) for one in hashes]),
        np.cumsum([0, *map(len, hashes)]),
    )
    assert (signatures_of(together, permutations) == [sketch.hashvalues for sketch in sketches]).all()


@given(st.lists(st.text(st.sampled_from("ab é字\n"), max_size=60) | st.text(max_size=60), max_size=5))
@settings(max_examples=50, deadline=None)
def test_signatures_of_any_texts_are_those_of_datasketch_for_the_same_hashes(texts: list[str]) -> None:
    spec = MinHash(bands=4, rows=3)
    sketches = [datasketch.MinHash(num_perm=12, hashfunc=lambda value: value & 0xFFFFFFFF) for _ in texts]
    sets = shingles(texts, spec.shingle)
    for number, sketch in enumerate(sketches):
        sketch.update_batch(sets.of(number).tolist())
    assert signatures(texts, spec).tolist() == [sketch.hashvalues.tolist() for sketch in sketches]


@pytest.mark.skipif(not (LICENCES / "GFDL-1.3").exists(), reason="the licence texts of Debian are not on this machine")
def test_of_two_versions_of_a_licence_above_the_threshold_the_longer_one_stays() -> None:
    names = ["GPL-1", "GFDL-1.2", "GPL-2", "LGPL-2", "GFDL-1.3", "LGPL-2.1", "GPL-3"]
    found = find_near_duplicates([(LICENCES / name).read_text() for name in names], MinHash())
    assert [(names[i], names[j]) for i, j in zip(found.removed, found.kept, strict=True)] == [("GFDL-1.2", "GFDL-1.3")]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (MinHash(), (20, 6)),
        (MinHash(threshold=0.9), (20, 6)),
        (MinHash(threshold=0.5, bands=14, rows=8), (14, 8)),
        (MinHash(threshold=0.5, bands=30), (30, 6)),
        (MinHash(threshold=0.7), (25, 5)),
        (MinHash(threshold=0.5), (39, 3)),
    ],
)
def test_a_low_threshold_has_the_bands_that_datasketch_chooses_for_it(spec: MinHash, expected: tuple[int, int]) -> None:
    bands, rows = banding(spec)
    assert (bands, rows) == expected
    if spec.bands is None:
        assert 1 - (1 - spec.threshold**rows) ** bands >= 0.989


def test_texts_share_the_key_of_a_band_exactly_where_all_its_rows_are_equal() -> None:
    spec = MinHash(bands=3, rows=2)
    signature = np.array([[1, 2, 1, 2, 5, 6], [1, 2, 2, 1, 5, 7]], dtype=np.uint32)
    keys = band_keys(signature, spec)
    assert (keys[0] == keys[1]).tolist() == [True, False, False]


def test_small_buckets_give_every_pair_once() -> None:
    keys = np.array([7, 8, 7, 7, 8, 9], dtype=np.uint64)
    pairs = bucket_pairs(keys, np.array([1, 2, 4, 5, 7, 9]))
    assert unpacked(pairs).tolist() == [[1, 4], [1, 5], [2, 7], [4, 5]]


@pytest.mark.parametrize("count", [0, 1], ids=["no text", "one text"])
def test_fewer_than_two_texts_give_no_pair(count: int) -> None:
    assert unpacked(bucket_pairs(np.ones(count, dtype=np.uint64), np.arange(count))).shape == (0, 2)


def test_a_huge_bucket_gives_few_pairs_and_still_one_cluster() -> None:
    pairs = unpacked(bucket_pairs(np.zeros(5000, dtype=np.uint64), np.arange(5000)))
    assert len(pairs) < 17 * 5000
    assert set(clusters(pairs, 5000)) == {0}


def test_what_is_found_among_real_texts_is_what_comparing_all_pairs_finds() -> None:
    texts = [path.read_text() for path in sorted((Path(sysconfig.get_path("stdlib")) / "encodings").glob("cp*.py"))]
    pairs = np.array(list(combinations(range(len(texts)), 2)))
    similar = pairs[jaccards(shingles(texts, 5), pairs) >= 0.8]
    components = clusters(similar, len(texts))
    found = find_near_duplicates(texts, MinHash())
    assert len(similar) > 5
    assert len(texts) - len(found.removed) == len(set(components.tolist()))
    assert (components[found.removed] == components[found.kept]).all()
