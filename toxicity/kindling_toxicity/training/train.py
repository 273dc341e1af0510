"""Learns the toxicity classifier from labelled texts, and says how good it is.

Logistic regression over hashed n-grams, each scaled by its log-count ratio between the classes, as in Wang and Manning
2012 ("Baselines and Bigrams", ACL P12-2018), which helps short texts most; and patterns of words beside it. A label is
a share between 0 and 1: of the people asked, how many called the text toxic. A tenth of the texts is kept back to
calibrate the score (Platt 1999), and trained on afterwards, and a fifth to evaluate it; which ones is decided by the
digest of a text, so that copies of it never lie on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array, diags_array
from scipy.stats import rankdata

from kindling_toxicity.model import Floats, Model, load, sigmoid
from kindling_toxicity.ngrams import BUCKETS, ngrams_in_batches
from kindling_toxicity.training.patterns import learn_patterns

STRENGTH = 10.0
"""Weight of the examples against the penalty ½ ‖w‖²."""
PATTERNS_SHARE = 0.4
"""What the patterns' log-odds count for beside the n-grams'; a quarter more or less of it changes nothing."""
STEPS = 60
"""Most steps of L-BFGS; the result hardly changes after forty."""
TOXIC = 0.5
"""A text is toxic when its label is at least this."""
BINS = 10
"""Rows of the calibration table."""
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
WANTED_PRECISION = 0.95
"""The threshold that the card recommends is the lowest one that reaches it."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Examples:
    """Labelled texts."""

    texts: list[str]
    labels: Floats
    """[texts] From 0, harmless, to 1, toxic."""

    def take(self, mask: Mask) -> Examples:
        """The examples where `mask` is true."""
        return Examples([text for text, taken in zip(self.texts, mask, strict=True) if taken], self.labels[mask])


@dataclass(frozen=True)
class ThresholdFigures:
    """What removing all texts above a threshold would do."""

    threshold: float
    precision: float
    """The fraction of the removed that is toxic."""
    recall: float
    """The fraction of the toxic that is removed."""
    harmless_removed: float
    """The fraction of the harmless that is removed."""


@dataclass(frozen=True)
class CalibrationBin:
    """The texts whose scores lie between two tenths."""

    count: int
    mean_score: float
    toxic: float
    """The share of them that is toxic; of a calibrated score, the mean score."""


@dataclass(frozen=True)
class ClassifierEvaluation:
    """How good a model is on texts that it has not seen."""

    texts: int
    toxic: int
    auc: float
    """Area under the ROC curve: how often a toxic text scores higher than a harmless one."""
    calibration_error: float
    """Mean distance of score and share of toxic texts over the bins, weighted by their texts."""
    recommended: float | None
    """The lowest threshold of WANTED_PRECISION; None where there is none."""
    thresholds: list[ThresholdFigures]
    calibration: list[CalibrationBin]


def split(texts: Sequence[str], fifth: int = 0) -> tuple[Mask, Mask, Mask]:
    """Which of the texts are for learning (seven tenths), for calibrating (one) and for evaluating (two: a `fifth`)."""
    digests = [xxhash.xxh3_64_intdigest(" ".join(text.lower().split()).encode()) for text in texts]
    tenth = ((np.array(digests, dtype=np.uint64) % np.uint64(10)).astype(int) - 2 * fifth) % 10
    return tenth >= 3, tenth == 2, tenth <= 1


def train(learning: Examples, calibrating: Examples) -> Model:
    """The model trained on some examples and calibrated on others; both need toxic and harmless ones."""
    logits = csr_array(_learn(learning).logits(calibrating.texts)[:, None])
    scale, shift = fit(logits, calibrating.labels, strength=1e6)  # unpenalised
    labels = np.append(learning.labels, calibrating.labels)
    model = _learn(Examples([*learning.texts, *calibrating.texts], labels)).calibrated(float(scale[0]), shift)
    return load(model.to_bytes(), "")  # in the precision of its file


def evaluate(model: Model, examples: Examples) -> ClassifierEvaluation:
    """The figures of a model on `examples`, of which some are toxic and some harmless."""
    scores, toxic = model.scores(examples.texts), examples.labels >= TOXIC
    thresholds = [_at_threshold(scores, toxic, threshold) for threshold in THRESHOLDS]
    bins = [_bin(scores, toxic, number) for number in range(BINS)]
    error = sum(each.count * abs(each.mean_score - each.toxic) for each in bins) / len(toxic)
    return ClassifierEvaluation(
        texts=len(toxic),
        toxic=int(toxic.sum()),
        auc=roc_auc(scores, toxic),
        calibration_error=error,
        recommended=_lowest_threshold(scores, toxic, WANTED_PRECISION),
        thresholds=thresholds,
        calibration=bins,
    )


def roc_auc(scores: Floats, positive: Mask) -> float:
    """The area under the ROC curve, by the ranks of the scores (Mann and Whitney's U); equal scores count half."""
    count, others = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def _learn(examples: Examples) -> Model:
    """The n-grams' weights are the mean of those fitted to the shares and to what most people said, which errs
    less than either."""
    features = _features(examples.texts)
    found = []
    for labels in (examples.labels, (examples.labels >= TOXIC).astype(np.float64)):
        ratios = np.abs(_log_ratios(features, labels))
        weights, bias = fit(features @ diags_array(ratios), labels, STRENGTH)
        found.append((weights * ratios, bias))
    (one, one_bias), (other, other_bias) = found
    patterns = learn_patterns(examples.texts, examples.labels).times(PATTERNS_SHARE)
    return Model(((one + other) / 2).astype(np.float32), patterns, (one_bias + other_bias) / 2)


def _features(texts: Sequence[str]) -> csr_array:
    """[texts, BUCKETS] 1 / √n where a text has an n-gram, n being the number of its n-grams, as in `Model`."""
    rows, columns = [], []
    for start, _, found in ngrams_in_batches(texts):
        rows.append((found.texts + start).astype(np.int32))
        columns.append(found.buckets.astype(np.int32))
    row, column = np.concatenate(rows), np.concatenate(columns)
    values = 1 / np.sqrt(np.bincount(row, minlength=len(texts)).astype(np.float32))[row]
    return csr_array((values, (row, column)), shape=(len(texts), BUCKETS))


def _log_ratios(features: csr_array, labels: Floats) -> Floats:
    """[BUCKETS] For each n-gram, the log of its share among toxic texts' n-grams over that among the others'."""
    present = features.astype(bool).astype(np.float64).T.tocsr()
    toxic, harmless = present @ labels + 1, present @ (1 - labels) + 1
    ratios: Floats = np.log(toxic / toxic.sum()) - np.log(harmless / harmless.sum())
    return ratios


def fit(features: csr_array, labels: Floats, strength: float) -> tuple[Floats, float]:
    """The weights w and the bias b that minimise strength · Σ cross-entropy(σ(Xw + b), labels) + ½ ‖w‖²."""
    transposed = features.T.tocsr()

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, bias = parameters[:-1], parameters[-1]
        logits = features @ weights + bias
        value = strength * (np.logaddexp(0, logits) - labels * logits).sum() + weights @ weights / 2
        slope = strength * (sigmoid(logits) - labels)
        return value, np.append(transposed @ slope + weights, slope.sum())

    start = np.zeros(features.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x
    return found[:-1], float(found[-1])


def _at_threshold(scores: Floats, toxic: Mask, threshold: float) -> ThresholdFigures:
    removed = scores > threshold
    hits = int((removed & toxic).sum())
    return ThresholdFigures(
        threshold=threshold,
        precision=hits / max(int(removed.sum()), 1),
        recall=hits / int(toxic.sum()),
        harmless_removed=(int(removed.sum()) - hits) / int((~toxic).sum()),
    )


def _lowest_threshold(scores: Floats, toxic: Mask, precision: float) -> float | None:
    """To three digits, the lowest threshold above which the wanted share of texts is toxic, there and at any higher."""
    candidates = np.linspace(0.001, 0.999, 999)
    order = np.argsort(scores)
    above = len(scores) - np.searchsorted(scores[order], candidates, side="right")
    toxic_above = np.append(np.cumsum(toxic[order][::-1])[::-1], 0)[len(scores) - above]
    failing = np.flatnonzero((above > 0) & (toxic_above < precision * above))
    first = int(failing[-1]) + 1 if len(failing) else 0
    return round(float(candidates[first]), 3) if first < len(candidates) and above[first] else None


def _bin(scores: Floats, toxic: Mask, number: int) -> CalibrationBin:
    inside = np.minimum((scores * BINS).astype(int), BINS - 1) == number
    if not inside.any():
        return CalibrationBin(0, (number + 0.5) / BINS, 0.0)
    return CalibrationBin(int(inside.sum()), float(scores[inside].mean()), float(toxic[inside].mean()))
