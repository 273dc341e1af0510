"""From records to documents and removals: repair, line removal, measures, decisions. Pure; `stages.clean` runs it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_dataprep.records import Document, LinesRemoved, Removal, excerpt_of
from kindling_dataprep.steps.adult import SITES
from kindling_dataprep.steps.boilerplate import without_boilerplate
from kindling_dataprep.steps.c4 import c4_lines
from kindling_dataprep.steps.decide import LANGUAGE, Decision, decide
from kindling_dataprep.steps.language import languages_of
from kindling_dataprep.steps.languages import DEPENDENT, ENGLISH
from kindling_dataprep.steps.lines import without_duplicates
from kindling_dataprep.steps.measure import measure
from kindling_dataprep.steps.repair import repair


@dataclass
class CleanedBatch:
    """What became of one batch of records."""

    kept: list[Document] = field(default_factory=list)
    removed: list[Removal] = field(default_factory=list)
    measures: pa.Table = field(default_factory=lambda: pa.table({}))
    """The measures, one row for each document that the rules looked at; as in the product (see `ledger`)."""
    lines_removed: list[LinesRemoved] = field(default_factory=list)
    """What rules took out of documents."""


@dataclass(frozen=True)
class Lists:
    """What the rules look up."""

    repeated: Collection[int] = frozenset()
    """The hashes of lines that are boilerplate (see `steps.boilerplate`)."""
    first: Mapping[int, int] = field(default_factory=dict)
    """The place of the first document that holds a line (see `steps.lines`)."""
    place: int = 0
    """Of the first of the records, in the order of the sources."""
    sites: Collection[str] = SITES
    """Domains of adult sites."""


def clean_batch(records: Sequence[Document | Removal], spec: DatasetBuildSpec, lists: Lists = Lists()) -> CleanedBatch:
    """Repairs, measures and decides: which of the records stay as documents, in their order, and why others do not.

    Args:
        records: Some records.
        spec: The rules.
        lists: What they look up.
    """
    outcome = CleanedBatch()
    place = {record.id: number for number, record in enumerate(records)}
    documents: list[Document] = []
    languages: list[str] = []
    asks_language = any(each.chosen[0] in DEPENDENT for each in spec.filters)
    for number, record in enumerate(records, start=lists.place):
        result = record if isinstance(record, Removal) else _prepared(record, spec, number, lists, outcome)
        language = languages_of([result.text])[0] if asks_language and isinstance(result, Document) else ENGLISH
        if isinstance(result, Document):
            result = _with_c4_lines(result, spec, language, outcome)
        if isinstance(result, Removal):
            outcome.removed.append(result)
        else:
            documents.append(result)
            languages.append(language)
    measures = measure(
        [document.text for document in documents],
        spec.filters,
        languages=languages,
        urls=[document.url for document in documents],
        sites=lists.sites,
    )
    if asks_language:
        measures = measures.append_column(LANGUAGE, pa.array(languages, pa.string()))
    decisions = decide(measures, spec.filters)
    outcome.measures = _measures_table(documents, decisions, measures)
    for document, decision in zip(documents, decisions, strict=True):
        if decision is None:
            outcome.kept.append(document)
        else:
            outcome.removed.append(
                Removal(
                    id=document.id,
                    rule=decision.rule,
                    measure=decision.measure,
                    value=decision.value,
                    threshold=decision.threshold,
                    excerpt=excerpt_of(document.text),
                )
            )
    outcome.removed.sort(key=lambda removal: place[removal.id])
    return outcome


def _prepared(
    document: Document, spec: DatasetBuildSpec, place: int, lists: Lists, outcome: CleanedBatch
) -> Document | Removal:
    """The document repaired and without unwanted lines, which are noted; or why nothing is left of it."""
    rules = dict(each.chosen for each in spec.filters)
    result = repaired_by(document, rules)
    if isinstance(result, Document) and "boilerplate" in rules:
        left, removed = without_boilerplate(result, lists.repeated, rules["boilerplate"])
        result = _noted(result, "boilerplate", left, len(removed), removed, outcome)
    if isinstance(result, Document) and spec.deduplicate.lines is not None:
        left, removed = without_duplicates(result.text, place, lists.first, spec.deduplicate.lines)
        result = _noted(result, "lines", left, len(removed), removed, outcome)
    return result


def _with_c4_lines(
    document: Document, spec: DatasetBuildSpec, language: str, outcome: CleanedBatch
) -> Document | Removal:
    """The document without the lines that C4 removes, where it is among the rules; or why nothing is left of it."""
    for rules in (each.c4 for each in spec.filters if each.c4 is not None):
        left, count = c4_lines(document.text, rules, language)
        return _noted(document, "c4", left, count, [], outcome)
    return document


def _noted(
    document: Document, rule: str, left: str, count: int, removed: Sequence[str], outcome: CleanedBatch
) -> Document | Removal:
    """The document with the text that a rule `left`; what it took out is noted."""
    if count:
        excerpt = excerpt_of(removed[0]) if removed else ""
        characters = len(document.text) - len(left)
        outcome.lines_removed.append(LinesRemoved(document.id, rule, count, characters, excerpt))
    if not left.strip():
        return _nothing_left(document, rule, "characters", 0.0, 1.0)
    return replace(document, text=left)


def repaired_by(document: Document, rules: Mapping[str, Any]) -> Document | Removal:
    """The document as `formatting` repairs it, where that is among the rules; or why nothing is left of it."""
    if "formatting" not in rules:
        return document
    result = repair(document.text, rules["formatting"])
    if not isinstance(result, str):
        return _nothing_left(document, "formatting", *result)
    return replace(document, text=result)


def _nothing_left(document: Document, rule: str, measured: str, value: float, threshold: float) -> Removal:
    excerpt = excerpt_of(document.text)
    return Removal(id=document.id, rule=rule, measure=measured, value=value, threshold=threshold, excerpt=excerpt)


def _measures_table(documents: list[Document], decisions: list[Decision | None], measures: pa.Table) -> pa.Table:
    whose = {
        "id": pa.array([document.id for document in documents], pa.string()),
        "characters": pa.array([len(document.text) for document in documents], pa.int64()),
        "rule": pa.array([decision and decision.rule for decision in decisions], pa.string()),
    }
    return pa.table(whose | dict(zip(measures.column_names, measures.columns, strict=True)))
