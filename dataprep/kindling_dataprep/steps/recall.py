"""How many near-duplicates the settings really find: measured in every run on pairs planted for it.

Bands and rows promise a recall of 1 - (1 - Jʳ)ᵇ for ideal hash functions; the report shows what came out on this
corpus' own text instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from kindling_api.v1alpha1.dataset_build import MinHash
from kindling_dataprep.steps.minhash import band_keys, bucket_pairs, permutations_of, signatures_of, unpacked
from kindling_dataprep.steps.shingles import jaccards, shingle_set, shingles
from kindling_dataprep.steps.words import plain_words_of


@dataclass(frozen=True, slots=True)
class PlantedPair:
    """A document and an altered copy of it."""

    original: str
    altered: str


@dataclass(frozen=True, slots=True)
class Recall:
    """What became of the planted pairs. A duplicate is a pair whose true similarity reaches the threshold."""

    duplicates: int
    """Duplicates among the planted pairs, and among those reported besides."""
    found: int
    """Duplicates that were found."""
    candidates: int
    """Pairs that the bands proposed."""
    reported: int
    """Pairs that verification let through."""

    @property
    def recall(self) -> float:
        """found / duplicates; 1 where there was nothing to find."""
        return self.found / self.duplicates if self.duplicates else 1.0

    @property
    def precision(self) -> float:
        """The share of what was reported that are duplicates; 1 where nothing was reported."""
        return self.found / self.reported if self.reported else 1.0


def planted_pairs(
    documents: Sequence[str], jaccards: Sequence[float], seed: int, *, shingle: int = 5
) -> list[PlantedPair]:
    """One pair for each document, altered so as to come near the similarities asked for, which take turns.

    Of a document with k shingles, replacing every so many words one makes `shingle` of them new, and leaving out words
    at its end takes one away each: k - r shingles are common, of k + r or of k. Every second pair is made by replacing
    and the others by leaving out. What the similarity came to be is for `jaccard` to say.
    """
    generator = np.random.default_rng(seed)
    pairs = []
    for number, document in enumerate(documents):
        words = plain_words_of(document)
        target = jaccards[number % len(jaccards)]
        count = max(1, len(words) - shingle + 1)
        if (number // len(jaccards)) % 2:
            altered = words[: len(words) - round(count * (1 - target))]
        else:
            changed = round(count * (1 - target) / (1 + target) / shingle)
            altered = list(words)
            places = np.arange(shingle // 2, len(words), shingle)  # far enough apart to share no shingle
            for place in generator.choice(places, size=min(changed, len(places)), replace=False):
                altered[place] = f"planted{number}x{place}"
        pairs.append(PlantedPair(document, " ".join(altered)))
    return pairs


def measure_recall(pairs: Sequence[PlantedPair], spec: MinHash) -> Recall:
    """Look for the planted pairs as a build looks for near-duplicates, and compare with the truth.

    The truth about every pair, planted or reported, is taken from the sets of shingles themselves, not their hashes.
    """
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair.original, pair.altered)))
    sets = shingles(texts, spec.shingle)
    keys = band_keys(signatures_of(sets, permutations_of(spec)), spec)
    numbers = np.arange(len(texts))
    candidates = unpacked(reduce(np.union1d, (bucket_pairs(band, numbers) for band in keys.T)))
    verified = candidates[jaccards(sets, candidates) >= spec.threshold]
    reported = {(i, j) for i, j in verified.tolist()}
    positions = {text: position for position, text in enumerate(texts)}
    planted = {_ordered(positions[pair.original], positions[pair.altered]) for pair in pairs}
    true = {
        pair
        for pair in planted | reported
        if _true_jaccard(texts[pair[0]], texts[pair[1]], spec.shingle) >= spec.threshold
    }
    return Recall(duplicates=len(true), found=len(true & reported), candidates=len(candidates), reported=len(reported))


def _ordered(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i < j else (j, i)


def _true_jaccard(one: str, other: str, size: int) -> float:
    """The similarity by definition, without a hash."""
    first, second = shingle_set(one, size), shingle_set(other, size)
    return len(first & second) / len(first | second)
