"""From measures to decisions: which rule, if any, removes a document.

A rule is a bound in the spec: `min_words: 50` removes a document whose `words` is below 50, `max_…` one whose measure
is above; a value equal to the bound stays. Fields that name no measure say something else, such as which lines go. Rule
sets are asked in the order of MEASURES, and the bounds of a set in the order of its fields; the first that is broken is
the document's reason. Languages come before all bounds. A bound that the spec leaves at its default is, for a document
in a language that has its own, the language's (see `languages`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic.alias_generators import to_camel

from kindling_api.v1alpha1.filters import Filter
from kindling_dataprep.steps.languages import language_rules
from kindling_dataprep.steps.measure import MEASURES, measure

LANGUAGE = "rulesLanguage"
"""The column that names the language of each document whose rules it gets."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a document is removed."""

    rule: str
    """The filter's name, as the spec spells it."""
    measure: str
    value: float
    """What was measured."""
    threshold: float | None
    """The bound that it broke; None for a document in another language."""


def decide(measures: pa.Table, filters: Sequence[Filter]) -> list[Decision | None]:
    """For each row of `measure`'s table the reason for its removal, or None where the document stays."""
    decisions: list[Decision | None] = [None] * measures.num_rows
    undecided = np.ones(measures.num_rows, dtype=bool)
    for other, decision in _in_other_languages(measures, filters):
        decisions[other] = decision
        undecided[other] = False
    for bound in bounds(filters):
        values = measures[f"{bound.rule}.{bound.measure}"].to_numpy()
        thresholds = _thresholds(bound, measures)
        broken = undecided & (values < thresholds if bound.is_minimum else values > thresholds)
        undecided &= ~broken
        for row in np.flatnonzero(broken):
            decisions[row] = Decision(bound.rule, bound.measure, float(values[row]), float(thresholds[row]))
    return decisions


def _thresholds(bound: Bound, measures: pa.Table) -> NDArray[np.float64]:
    """[documents] What the bound is for each."""
    thresholds = np.full(measures.num_rows, bound.threshold, dtype=np.float64)
    if bound.is_default and LANGUAGE in measures.column_names:
        rules, key = language_rules(), (bound.rule, bound.measure, bound.is_minimum)
        codes = measures[LANGUAGE].combine_chunks().dictionary_encode()
        for number, code in enumerate(codes.dictionary.to_pylist()):
            if code in rules and key in rules[code].thresholds:
                thresholds[codes.indices.to_numpy() == number] = rules[code].thresholds[key]
    return thresholds


def _in_other_languages(measures: pa.Table, filters: Sequence[Filter]) -> Iterator[tuple[int, Decision]]:
    """The rows in a language that does not stay: the measure says which, as in `language=de`, the value how surely."""
    for keep in (each.language.keep for each in filters if each.language is not None):
        scores = measures["language.score"].to_numpy()
        for row, code in enumerate(measures["language.language"].to_pylist()):
            if code not in keep:
                yield row, Decision("language", f"language={code}", float(scores[row]), None)


def margins(measures: pa.Table, filters: Sequence[Filter]) -> NDArray[np.float64]:
    """[documents] By how wide a margin each document that stays passes the rules, in [0, 1].

    The mean, over all bounds, of |value - threshold| / threshold, each at most 1: 0 where a measure is just what it may
    be, 1 where it is twice its minimum, or none of its maximum. A bound of 0, of which nothing is a share, is left out;
    without any other, all margins are 0.
    """
    total, count = np.zeros(measures.num_rows), np.zeros(measures.num_rows, dtype=np.int64)
    for bound in bounds(filters):
        values, thresholds = measures[f"{bound.rule}.{bound.measure}"].to_numpy(), _thresholds(bound, measures)
        asks = thresholds != 0
        distances = np.abs(values - thresholds)
        total += np.minimum(np.divide(distances, thresholds, out=np.zeros_like(total), where=asks), 1.0)
        count += asks
    return total / np.maximum(count, 1)


@dataclass(frozen=True, slots=True)
class Bound:
    """One threshold of the spec."""

    rule: str
    measure: str
    is_minimum: bool
    threshold: float
    is_default: bool
    """Whether it is the rule's published one."""


def bounds(filters: Sequence[Filter]) -> Iterator[Bound]:
    """The thresholds that `filters` set, in the order in which they are asked."""
    measured = set(measure([], filters).column_names)
    for rule in MEASURES:
        for chosen, settings in (each.chosen for each in filters):
            if chosen == rule:
                for field, threshold in settings:
                    side, _, name = field.partition("_")
                    if side in ("min", "max") and f"{rule}.{to_camel(name)}" in measured:
                        default = type(settings).model_fields[field].default
                        yield Bound(rule, to_camel(name), side == "min", threshold, threshold == default)
