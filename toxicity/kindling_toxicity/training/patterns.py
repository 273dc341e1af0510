"""Learns the patterns of words of the toxicity classifier from labelled texts.

Stochastic gradient descent on the cross-entropy, with a step for each word that is smaller the more its row has moved
(Adagrad, Duchi et al. 2011, by rows), which suits words of which few are frequent. Words and patterns are left out at
random meanwhile (Srivastava et al. 2014, "Dropout").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kindling_toxicity.model import Floats, sigmoid
from kindling_toxicity.ngrams import WORDS, ngrams_in_batches
from kindling_toxicity.patterns import PATTERNS, UNKNOWN, Integers, Patterns, starts_of

# Chosen by cross-validation on tweets; half or twice the rate, or twice the batch, costs 0.0002 of the area under the
# ROC curve at most.
EPOCHS = 8
BATCH = 64
"""Texts."""
RATE = 0.1
"""Learning rate of the first step; it falls linearly to 0."""
WORDS_LEFT_OUT, PATTERNS_LEFT_OUT = 0.1, 0.5
"""Shares of them, in each step."""
RARE = 2
"""A word that stands fewer times than this in all examples is not known."""
SPREAD_OF_ROWS, SPREAD_OF_SAYS = 0.05, 0.3
"""Standard deviations of what the patterns start as."""
LEAST = 1e-100
"""What nothing has moved yet counts as moved by, so that a step of 0 stays one."""

Single = NDArray[np.float32]


def learn_patterns(texts: Sequence[str], labels: Floats) -> Patterns:
    """The patterns that tell texts of label 1 from those of label 0; the same ones for the same texts."""
    examples = list(_words_of(texts))
    counts = np.bincount(np.concatenate(examples), minlength=WORDS)
    known = counts >= RARE
    known[UNKNOWN] = False
    examples = [np.where(known[words], words, UNKNOWN) for words in examples]
    chance = np.random.default_rng(0)
    learner = Learner(known, chance)
    order = np.flatnonzero([len(words) > 0 for words in examples])
    batches = -(-len(order) // BATCH)
    for epoch in range(EPOCHS):
        order = chance.permutation(order)
        for number in range(batches):
            batch = order[number * BATCH : (number + 1) * BATCH]
            rate = RATE * (1 - (epoch * batches + number) / (EPOCHS * batches))
            learner.step([examples[each] for each in batch], labels[batch], rate)
    return learner.patterns


class Learner:
    """Patterns that change, and the squares of what has moved them."""

    def __init__(self, known: NDArray[np.bool_], chance: np.random.Generator) -> None:
        self.chance = chance
        rows = np.zeros((2, WORDS, PATTERNS), dtype=np.float32)
        rows[:, known] = chance.normal(0, SPREAD_OF_ROWS, (2, int(known.sum()), PATTERNS))
        says = chance.normal(0, SPREAD_OF_SAYS, PATTERNS).astype(np.float32)
        self.patterns = Patterns(rows, np.zeros(PATTERNS, dtype=np.float32), says)
        self.bias = np.zeros(1, dtype=np.float32)
        sizes = {"rows": (2, WORDS), "least": PATTERNS, "says": PATTERNS, "bias": 1}
        self._moved = {name: np.full(size, LEAST) for name, size in sizes.items()}

    def step(self, examples: Sequence[Integers], labels: Floats, rate: float) -> None:
        """Moves the patterns down the gradient of the mean cross-entropy of the examples, each its words."""
        patterns, texts = self.patterns, np.repeat(np.arange(len(examples)), [len(each) for each in examples])
        words = np.concatenate(examples)
        words = np.where(self.chance.random(len(words)) < WORDS_LEFT_OUT, UNKNOWN, words)
        matches = patterns.matches(words, texts)
        best = np.maximum.reduceat(matches, starts_of(texts), axis=0)  # [examples, PATTERNS]
        counted = (self.chance.random(best.shape) >= PATTERNS_LEFT_OUT) / (1 - PATTERNS_LEFT_OUT)
        beyond = np.maximum(best - patterns.least, 0) * counted
        wrong = (sigmoid(beyond @ patterns.says + self.bias) - labels) / len(labels)  # [examples]
        slopes = wrong[:, None] * patterns.says * counted * (beyond > 0)  # [examples, PATTERNS]
        self._move_rows(words, texts, matches == best[texts], slopes, rate)
        self._move("least", patterns.least, -slopes.sum(axis=0), rate)
        self._move("says", patterns.says, wrong @ beyond, rate)
        self._move("bias", self.bias, wrong.sum(keepdims=True), rate)

    def _move_rows(
        self, words: Integers, texts: Integers, hits: NDArray[np.bool_], slopes: Floats, rate: float
    ) -> None:
        """Moves the rows of the words at which a pattern matches best, `hits` [words, PATTERNS], and of the next."""
        places, columns = np.nonzero(hits & (slopes != 0)[texts])
        slope = slopes[texts[places], columns]
        for which in (0, 1):
            at = np.minimum(places + which, len(words) - 1)
            there = (texts[at] == texts[places]) & (at == places + which) & (words[at] != UNKNOWN)
            found, row = np.unique(words[at[there]], return_inverse=True)
            gradient = np.zeros((len(found), PATTERNS))
            np.add.at(gradient, (row, columns[there]), slope[there])
            self._moved["rows"][which, found] += (gradient**2).mean(axis=1)
            self.patterns.rows[which, found] -= rate * gradient / np.sqrt(self._moved["rows"][which, found, None])

    def _move(self, name: str, value: Single, gradient: Floats, rate: float) -> None:
        self._moved[name] += gradient**2
        value -= (rate * gradient / np.sqrt(self._moved[name])).astype(np.float32)


def _words_of(texts: Sequence[str]) -> Iterator[Integers]:
    """The words of each text."""
    for _, count, found in ngrams_in_batches(texts):
        yield from np.split(found.words, np.cumsum(np.bincount(found.word_texts, minlength=count))[:-1])
