"""The model card of a toxicity classifier: what it was trained on, how good it is, and what it is not good for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from kindling_toxicity.ngrams import BUCKETS, CHARACTERS
from kindling_toxicity.patterns import PATTERNS
from kindling_toxicity.training.train import BINS, STRENGTH, WANTED_PRECISION, ClassifierEvaluation

_BAR = 40
"""Characters that stand for a share of 1 in the calibration plot."""

_LIMITS = """\
- It looks at words, pairs of words and pieces of words. It knows no irony, no quotation, and no context, and it takes
  a word that is an insult for most people for one everywhere, also where a group uses it of itself. A harmless word
  that holds one may be taken for it, most of all in a short text.
- The labels are those of the people who were asked, with their prejudices. Look at what was removed first.
- A score is a probability among texts like the examples. Where fewer are toxic, fewer of the removed are.
- Texts of other languages and kinds than the examples get scores that mean little."""


def card(title: str, sources: Sequence[str], examples: int, evaluation: ClassifierEvaluation) -> str:
    """The card, in Markdown.

    Args:
        title: The heading.
        sources: What the examples are: a line each.
        learnt: Examples learnt from.
        evaluation: The figures on examples that were held out.
    """
    return "\n".join(
        [
            f"# {title}",
            "",
            f"Logistic regression over hashed n-grams: characters of a word ({', '.join(map(str, CHARACTERS))} bytes),",
            f"words and pairs of words, in {BUCKETS:,} buckets, each present or not and scaled by its log-count ratio",
            f"(Wang and Manning 2012); strength {STRENGTH:g}. Beside it, {PATTERNS} patterns of two neighbouring words",
            "(Collobert et al. 2011). Calibrated after Platt (1999). A text's score is the mean over its passages.",
            "",
            f"Learnt from {examples:,} texts of:",
            "",
            *(f"- {source}" for source in sources),
            "",
            "## On held-out texts",
            "",
            *figures(evaluation),
            "",
            "## Limits",
            "",
            _LIMITS,
            "",
        ]
    )


def figures(evaluation: ClassifierEvaluation) -> Iterator[str]:
    """The figures of the card, line by line."""
    yield f"{evaluation.texts:,} texts, {evaluation.toxic:,} of them toxic: ROC-AUC **{evaluation.auc:.4f}**,"
    yield f"calibration error {evaluation.calibration_error:.4f}."
    yield ""
    if evaluation.recommended is None:
        yield f"No threshold removes with a precision of {WANTED_PRECISION:g}."
    else:
        yield f"Threshold for a precision of {WANTED_PRECISION:g}: **{evaluation.recommended:g}**."
    yield ""
    rows = [
        (f"{each.threshold:g}", f"{each.precision:.3f}", f"{each.recall:.3f}", f"{each.harmless_removed:.4f}")
        for each in evaluation.thresholds
    ]
    yield from _table(("threshold", "precision", "recall", "harmless removed"), rows)
    yield ""
    yield "Calibration: in each tenth of the score, the share of texts that are toxic (`#`; a full bar is all of them)."
    yield ""
    yield "```"
    for number, each in enumerate(evaluation.calibration):
        bar = "#" * round(_BAR * each.toxic)
        yield f"{number / BINS:.1f} {bar:<{_BAR}} {each.toxic:.3f}  mean score {each.mean_score:.3f}  n {each.count:,}"
    yield "```"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in chain([head, ["---"] * len(head)], rows):
        yield f"| {' | '.join(row)} |"
