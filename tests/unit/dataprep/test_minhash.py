"""Signatures are datasketch's; every pair at or above the threshold is found, and nothing below it is removed."""

import re
import sysconfig
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import datasketch
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindling_api.v1alpha1.dataset_build import MinHash
from kindling_dataprep.steps.minhash import (
    band_keys,
    candidate_pairs,
    clusters,
    jaccard,
    near_duplicates,
    shingle_hashes,
    signatures,
)

LICENCES = Path("/usr/share/common-licenses")


def standard_library(count: int) -> list[str]:
    return [
        path.read_text(errors="replace") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:count]
    ]


def find_near_duplicates(texts: Sequence[str], spec: MinHash) -> dict[str, tuple[str, float]]:
    """All the functions in a row, as a build calls them."""
    pairs = candidate_pairs(band_keys(signatures(texts, spec), spec))
    sets = [shingle_hashes(text, spec.shingle) for text in texts]
    similarities = np.array([jaccard(sets[i], sets[j]) for i, j in pairs.tolist()])
    return near_duplicates(
        [str(i) for i in range(len(texts))], [len(text) for text in texts], pairs, similarities, spec
    )


def signature_of_datasketch(text: str, spec: MinHash) -> list[int]:
    sketch = datasketch.MinHash(num_perm=spec.bands * spec.rows)
    assert sketch.scheme == "affine32"
    for shingle in shingles_as_defined(text, spec.shingle):
        sketch.update(shingle.encode())
    return [int(value) for value in sketch.hashvalues]


def shingles_as_defined(text: str, size: int) -> list[str]:
    words = re.findall(r"\w+", text.lower())
    runs = [" ".join(words[i : i + size]) for i in range(len(words) - size + 1)]
    return runs or [re.sub(r"\s+", " ", text.strip())]


@pytest.mark.parametrize(
    "spec",
    [MinHash(), MinHash(bands=9, rows=13), MinHash(shingle=1, bands=1, rows=1), MinHash(bands=64, rows=4)],
    ids=["default", "9 × 13", "a single permutation", "64 × 4"],
)
def test_signatures_of_real_texts_are_those_of_datasketch(spec: MinHash) -> None:
    texts = standard_library(6)
    assert signatures(texts, spec).tolist() == [signature_of_datasketch(text, spec) for text in texts]


@given(st.lists(st.text(st.sampled_from("ab é字\n"), max_size=60) | st.text(max_size=60), max_size=5))
@settings(max_examples=50, deadline=None)
def test_signatures_of_any_texts_are_those_of_datasketch(texts: list[str]) -> None:
    spec = MinHash(bands=4, rows=3)
    assert signatures(texts, spec).tolist() == [signature_of_datasketch(text, spec) for text in texts]


@pytest.mark.parametrize(
    ("text", "same"),
    [("", " \n"), ("one two!", "one\ttwo!"), ("one two three four five", "One (two)  three, four five.")],
    ids=["no words", "fewer words than a shingle", "one shingle"],
)
def test_a_text_shorter_than_a_shingle_is_one_shingle(text: str, same: str) -> None:
    assert len(shingle_hashes(text, 5)) == 1
    assert shingle_hashes(text, 5).tolist() == shingle_hashes(same, 5).tolist()


def test_texts_without_words_are_alike_only_where_they_are_equal() -> None:
    assert jaccard(shingle_hashes("{ } ;", 5), shingle_hashes("[ ] ;", 5)) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [
        ("a b c d", "a b c d", 1.0),
        ("a b c d", "w x y z", 0.0),
        ("a b c d e", "a b c d x", 0.6),  # ab bc cd | de dx
        ("a a a a", "a a", 1.0),  # sets: how often a shingle occurs does not count
    ],
    ids=["equal", "disjoint", "three of five", "repetition"],
)
def test_jaccard_is_the_share_of_common_shingles(one: str, other: str, similarity: float) -> None:
    assert jaccard(shingle_hashes(one, 2), shingle_hashes(other, 2)) == similarity


@pytest.mark.skipif(not (LICENCES / "GFDL-1.3").exists(), reason="the licence texts of Debian are not on this machine")
@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [("GFDL-1.2", "GFDL-1.3", 0.852), ("LGPL-2", "LGPL-2.1", 0.721), ("GPL-1", "GPL-2", 0.463)],
    ids=["GFDL", "LGPL", "GPL"],
)
def test_licences_are_as_similar_as_is_known(one: str, other: str, similarity: float) -> None:
    first, second = (shingle_hashes((LICENCES / name).read_text(), 5) for name in (one, other))
    assert jaccard(first, second) == pytest.approx(similarity, abs=0.0005)


@pytest.mark.skipif(not (LICENCES / "GFDL-1.3").exists(), reason="the licence texts of Debian are not on this machine")
def test_of_two_versions_of_a_licence_above_the_threshold_the_longer_one_stays() -> None:
    names = ["GPL-1", "GFDL-1.2", "GPL-2", "LGPL-2", "GFDL-1.3", "LGPL-2.1", "GPL-3"]
    found = find_near_duplicates([(LICENCES / name).read_text() for name in names], MinHash())
    assert {names[int(removed)]: names[int(kept)] for removed, (kept, _) in found.items()} == {"GFDL-1.2": "GFDL-1.3"}


def test_bands_share_a_key_exactly_where_all_their_rows_are_equal() -> None:
    spec = MinHash(bands=3, rows=2)
    signature = np.array([[1, 2, 1, 2, 5, 6], [1, 2, 2, 1, 5, 7]], dtype=np.uint32)
    keys = band_keys(signature, spec)
    assert (keys[0] == keys[1]).tolist() == [True, False, False]
    assert len(np.unique(keys)) == 5  # bands 1 and 2 of the first have the same rows and still other keys


def test_small_buckets_give_every_pair_once() -> None:
    keys = np.array([[7, 1], [7, 1], [8, 1], [7, 2]], dtype=np.uint64)
    assert candidate_pairs(keys).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3]]


@pytest.mark.parametrize("count", [0, 1], ids=["no text", "one text"])
def test_fewer_than_two_texts_give_no_pair(count: int) -> None:
    assert candidate_pairs(np.ones((count, 4), dtype=np.uint64)).shape == (0, 2)


def test_a_huge_bucket_gives_few_pairs_and_still_one_cluster() -> None:
    keys = np.zeros((5000, 1), dtype=np.uint64)
    pairs = candidate_pairs(keys)
    assert len(pairs) < 17 * 5000
    assert set(clusters(pairs, 5000)) == {0}


def test_components_follow_the_pairs() -> None:
    labels = clusters(np.array([[0, 4], [4, 2], [1, 3]]), 6)
    groups = {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}
    assert groups == {frozenset({0, 2, 4}), frozenset({1, 3}), frozenset({5})}


IDS = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("lengths", "pairs", "removed"),
    [
        ([1, 3, 2, 1, 1], {(0, 1): 0.9, (1, 2): 0.8}, {"a": ("b", 0.9), "c": ("b", 0.8)}),
        ([1, 1, 1, 1, 1], {(2, 3): 1.0, (3, 4): 1.0}, {"d": ("c", 1.0), "e": ("c", 1.0)}),
        ([2, 1, 1, 1, 1], {(0, 1): 0.79, (2, 3): 0.95}, {"d": ("c", 0.95)}),
        ([1, 1, 1, 1, 9], {(0, 1): 0.5, (1, 4): 0.3}, {}),
        ([9, 1, 1, 1, 1], {(0, 1): 0.8, (1, 2): 0.99}, {"b": ("a", 0.8), "c": ("a", 0.99)}),
    ],
    ids=["the longest stays", "the first of equals stays", "a pair below the threshold is none", "no pair", "a chain"],
)
def test_one_document_of_a_cluster_stays(
    lengths: list[int], pairs: dict[tuple[int, int], float], removed: dict[str, tuple[str, float]]
) -> None:
    found = near_duplicates(IDS, lengths, np.array(list(pairs)), np.array(list(pairs.values())), MinHash())
    assert found == removed


def test_without_pairs_nothing_is_removed() -> None:
    assert near_duplicates(IDS, [1] * 5, np.empty((0, 2), dtype=np.int64), np.empty(0), MinHash()) == {}


def test_what_is_found_among_real_texts_is_what_comparing_all_pairs_finds() -> None:
    texts = [path.read_text() for path in sorted((Path(sysconfig.get_path("stdlib")) / "encodings").glob("cp*.py"))]
    sets = [shingle_hashes(text, 5) for text in texts]
    duplicates = [(i, j) for i, j in combinations(range(len(texts)), 2) if jaccard(sets[i], sets[j]) >= 0.8]
    components = clusters(np.array(duplicates), len(texts))
    found = find_near_duplicates(texts, MinHash())
    assert len(duplicates) > 5
    assert len(texts) - len(found) == len(set(components.tolist()))
    assert all(components[int(removed)] == components[int(kept)] for removed, (kept, _) in found.items())
