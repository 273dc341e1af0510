"""A classifier over hashed n-grams and patterns of words that says how toxic a text is, and its file.

The score of a passage is σ(b + Σ w / √n + p) over its n different n-grams, where p is what the patterns say, and that
of a longer text the mean over its passages: about the share of it that is toxic. `kindling_toxicity.training.train`
learns the weights.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindling_api.errors import SpecError, explain
from kindling_storage import ObjectStore
from kindling_toxicity.ngrams import BUCKETS, WORDS, ngrams_in_batches
from kindling_toxicity.patterns import PATTERNS, Patterns

MODEL_FILE = "model.npz"
BUILTIN = "builtin"

_FORMAT = 3
"""Raised when the n-grams or the score are computed otherwise."""
PASSAGE = 300
"""Characters; about the longest of the texts that people label."""
_BATCH = 256
"""Passages that are looked at together."""

_SIZES = {"weights": (BUCKETS,), "rows": (2, WORDS, PATTERNS), "least": (PATTERNS,), "says": (PATTERNS,)}
"""Shapes of the arrays in a model file."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Model:
    """The classifier's weights; the calibration is part of them."""

    weights: NDArray[np.float32]
    """[BUCKETS] Log-odds."""
    patterns: Patterns
    bias: float

    def scores(self, texts: Sequence[str]) -> Floats:
        """[texts] The probability of a passage of each text to be toxic, among texts like the training examples."""
        cut = [[text[start : start + PASSAGE] for start in range(0, len(text), PASSAGE)] or [""] for text in texts]
        passages = list(chain.from_iterable(cut))
        starts = np.cumsum([0, *map(len, cut[:-1])], dtype=np.int64)
        lengths = np.maximum(1, np.fromiter(map(len, passages), dtype=np.int64, count=len(passages)))
        if not texts:
            return np.empty(0)
        parts = sigmoid(self.logits(passages)) * lengths
        scores: Floats = np.add.reduceat(parts, starts) / np.add.reduceat(lengths, starts)
        return scores

    def logits(self, passages: Sequence[str]) -> Floats:
        """[passages] b + Σ w / √n + p; b for a passage without n-grams."""
        logits = np.full(len(passages), self.bias)
        for start, count, found in ngrams_in_batches(passages, _BATCH):
            sums = np.bincount(found.texts, self.weights[found.buckets], count)
            numbers = np.bincount(found.texts, minlength=count)
            patterns = self.patterns.logits(found, count)
            logits[start : start + count] += sums / np.sqrt(np.maximum(numbers, 1)) + patterns
        return logits

    def calibrated(self, scale: float, shift: float) -> Model:
        """The model whose logits are `scale` times these, plus `shift`."""
        weights = (self.weights * scale).astype(np.float32)
        return Model(weights, self.patterns.times(scale), self.bias * scale + shift)

    def to_bytes(self) -> bytes:
        """The model as a NumPy archive, weights in half precision; equal models give equal bytes."""
        file = io.BytesIO()
        arrays = {"weights": self.weights, **vars(self.patterns)}
        halved = {name: array.astype(np.float16) for name, array in arrays.items()}
        np.savez_compressed(file, allow_pickle=False, format=_FORMAT, bias=self.bias, **halved)
        return file.getvalue()


def load(data: bytes, where: str) -> Model:
    """The model in `data`; nothing in it is run.

    Raises:
        SpecError: it is none, naming `where` it is from.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            number, bias = int(archive["format"]), float(archive["bias"])
            arrays = {name: archive[name].astype(np.float32) for name in (_SIZES if number == _FORMAT else ())}
    except (ValueError, KeyError, EOFError, OSError, TypeError, zipfile.BadZipFile) as error:
        raise _no_model(where, f"no model ({error})") from error
    if number != _FORMAT:
        raise _no_model(where, f"a model of format {number}")
    for name, array in arrays.items():
        if array.shape != _SIZES[name]:
            raise _no_model(where, f"a model with {name} {array.shape}")
    if not all(np.isfinite(array).all() for array in arrays.values()) or not np.isfinite(bias):
        raise _no_model(where, "weights that are no numbers")
    weights = arrays.pop("weights")
    return Model(weights, Patterns(**arrays), bias)


def fetch(uri: str, open_store: Callable[[str], ObjectStore]) -> bytes:
    """The bytes of the model that a spec names: `builtin`, a folder that `kindling toxicity train` wrote, or its file.

    Raises:
        SpecError: there is no model.
        StorageError: the store cannot be reached, or refuses.
    """
    if uri == BUILTIN:
        return _builtin_file()
    place = (uri if "://" in uri else Path(uri).absolute().as_uri()).rstrip("/")
    folder, _, name = place.rpartition("/")
    where, path = (folder, name) if name.endswith(".npz") else (place, MODEL_FILE)
    store = open_store(where)
    if not store.exists(path):
        raise _no_model(uri, "nothing")
    data = store.get(path)
    load(data, uri)
    return data


@cache
def builtin() -> Model:
    """The built-in model."""
    return load(_builtin_file(), BUILTIN)


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-np.clip(logits, -500, 500)))


def _builtin_file() -> bytes:
    return resources.files("kindling_toxicity").joinpath("builtin", MODEL_FILE).read_bytes()


def _no_model(where: str, found: str) -> SpecError:
    allowed = f"builtin, or a folder with the {MODEL_FILE} of `kindling toxicity train`"
    remedy = "train a model for this version, or name an existing one"
    return SpecError(explain("spec.toxicity.model", found=f"{found} at {where}", allowed=allowed, remedy=remedy))
