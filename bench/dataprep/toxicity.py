"""Toxicity: ROC-AUC on labelled tweets, each fifth held out in turn, and speed on one core, beside a plain word n-gram
model; and what the built-in model removes of harmless prose.

    OMP_NUM_THREADS=1 python bench/dataprep/toxicity.py DATA

DATA holds `toxicity/train.csv` and `tinyshakespeare/input.txt`. The peer is logistic regression over the words and
pairs of words of a text, present or not, in a dictionary, as a library would be used: no hashing, no characters, no
scaling. Both learn from the same four fifths, with the same solver. One fifth says little: the five differ by 0.004.
Speed is in CPU seconds, so that a busy machine counts for little.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import sysconfig
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from kindling_toxicity.model import Floats, builtin
from kindling_toxicity.training.train import STRENGTH, Examples, evaluate, fit, roc_auc, split, train

FIFTHS = 5
REPEATS = 3
THRESHOLD = 0.5
_WORD = re.compile(r"\b\w\w+\b")


class WordModel:
    """The peer."""

    def __init__(self, examples: Examples) -> None:
        grams = sorted({gram for text in examples.texts for gram in self._grams(text)})
        self._numbers = {gram: number for number, gram in enumerate(grams)}
        self._weights, self._bias = fit(self._features(examples.texts), examples.labels, STRENGTH)

    def scores(self, texts: list[str]) -> Floats:
        """[texts] Log-odds."""
        scores: Floats = self._features(texts) @ self._weights + self._bias
        return scores

    def _grams(self, text: str) -> set[str]:
        words = _WORD.findall(text.lower())
        return {*words, *(f"{one} {other}" for one, other in pairwise(words))}

    def _features(self, texts: list[str]) -> csr_array:
        """[texts, grams] Rows of length 1."""
        rows, columns, values = [], [], []
        for row, text in enumerate(texts):
            known = [self._numbers[gram] for gram in self._grams(text) if gram in self._numbers]
            rows += [row] * len(known)
            columns += known
            values += [max(1, len(known)) ** -0.5] * len(known)
        return csr_array((np.array(values), (rows, columns)), shape=(len(texts), len(self._numbers)))


def per_second(score: Callable[[list[str]], Floats], texts: list[str]) -> float:
    """Texts in a CPU second, the best of some runs."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.process_time()
        score(texts)
        best = min(best, time.process_time() - started)
    return len(texts) / best


def tweets(data: Path) -> tuple[Examples, np.ndarray]:
    """The tweets, labelled by the share of annotators; and the classes that most of them chose, 2 being harmless."""
    with open(data / "toxicity" / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    shares = np.array([1 - int(row["neither"]) / int(row["count"]) for row in rows])
    return Examples([row["tweet"] for row in rows], shares), np.array([row["class"] != "2" for row in rows])


def prose(data: Path) -> dict[str, list[str]]:
    """Harmless documents, by name. The built-in model has seen a half of the plays and of the modules."""
    plays = (data / "tinyshakespeare" / "input.txt").read_text()
    library = Path(sysconfig.get_path("stdlib"))
    modules = [path for path in sorted(library.rglob("*.py")) if "site-packages" not in path.parts]
    unseen = plays[len(plays) // 2 :]
    return {
        "TinyShakespeare, all of it": [plays],
        "TinyShakespeare, speeches": plays.split("\n\n"),
        "TinyShakespeare, unseen half, 2,000 characters each": [
            unseen[start : start + 2000] for start in range(0, len(unseen), 2000)
        ],
        "TinyShakespeare, unseen half, speeches": unseen.split("\n\n"),
        "Python's standard library, files": [path.read_text(errors="replace") for path in modules],
    }


def main(data: Path) -> None:
    """Prints two tables, and JSON."""
    examples, toxic = tweets(data)
    aucs: dict[str, list[float]] = {"kindling": [], "word n-grams": []}
    errors = []
    for fifth in range(FIFTHS):
        learning, calibrating, held_out = split(examples.texts, fifth)
        ours = train(examples.take(learning), examples.take(calibrating))
        peer = WordModel(examples.take(learning | calibrating))
        texts = examples.take(held_out).texts
        aucs["kindling"].append(roc_auc(ours.scores(texts), toxic[held_out]))
        aucs["word n-grams"].append(roc_auc(peer.scores(texts), toxic[held_out]))
        errors.append(evaluate(ours, Examples(texts, toxic[held_out].astype(float))).calibration_error)
    speeds = {
        "kindling": per_second(ours.scores, examples.texts),
        "word n-grams": per_second(peer.scores, examples.texts),
    }
    print(f"{len(examples.texts):,} tweets; mean calibration error {np.mean(errors):.4f}")
    print(f"{'':<24}{'ROC-AUC':>9}  {'of each fifth':<36}{'texts/s/core':>14}")
    for name, each in aucs.items():
        print(f"{name:<24}{np.mean(each):>9.4f}  {' '.join(f'{auc:.4f}' for auc in each):<36}{speeds[name]:>14,.0f}")
    print(f"\n{'harmless documents, built-in model':<56}{'number':>9}{'removed':>14}")
    model = builtin()
    removed = {}
    for name, documents in prose(data).items():
        removed[name] = float((model.scores(documents) > THRESHOLD).mean())
        print(f"{name:<56}{len(documents):>9,}{removed[name]:>14.3%}")
    print(json.dumps({"auc": aucs, "textsPerSecond": speeds, "calibrationErrors": errors, "removedProse": removed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
