"""How a reward model compares the answers of two evaluations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from kindling_api.base import Digest

TIE = 1e-5
"""Numbers closer than this, absolutely or in proportion, are equal but for rounding: what stands beside a text in a
batch changes the last bits of its number."""


@dataclass(frozen=True)
class AnswerScores:
    """What a reward model gives the answers of an evaluation."""

    asked: Digest
    """Digest of all prompts that were answered, in their order."""
    scores: list[float]
    """One for each answer."""

    def win_rate(self, before: AnswerScores) -> float | None:
        """The share of answers that are better than those before, ties half; None where something else was asked."""
        if self.asked != before.asked:
            return None
        return fmean(_won(*pair) for pair in zip(self.scores, before.scores, strict=True))


def _won(score: float, before: float) -> float:
    return 0.5 if math.isclose(score, before, rel_tol=TIE, abs_tol=TIE) else float(score > before)
