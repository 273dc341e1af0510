"""What other thresholds would have done, told from what a dataset keeps: no text is read, and nothing is built.

The rules are asked again over the measures of all documents, and so is the toxicity threshold over the scores. What
comes after them is not: a document that would stay may still be a duplicate of another.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from kindling_api.errors import SpecError, explain, near
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_dataprep.output import ledger
from kindling_dataprep.output.work import read_table
from kindling_dataprep.stages.toxicity import RULE as TOXICITY
from kindling_dataprep.stages.toxicity import SCORES
from kindling_dataprep.steps.decide import Decision, bounds, decide
from kindling_storage import ObjectStore

STAYS = "stays"
"""In the place of a rule, for documents that none removes."""


@dataclass(frozen=True)
class Setting:
    """One threshold and what to try for it."""

    rule: str
    name: str
    value: Any

    def __str__(self) -> str:
        return f"{self.rule}.{self.name}"


@dataclass(frozen=True)
class Change:
    """A document that would go, or would stay, unlike now."""

    id: str
    now: str
    """The rule that removes it, or STAYS."""
    then: str
    measure: str
    """Of the rule that decides, now or then; with the value and the threshold that was broken."""
    value: float
    threshold: float | None


@dataclass
class WhatIfResult:
    """What would become of the documents that the rules measured."""

    now: Counter[str] = field(default_factory=Counter)
    """Documents by rule, and STAYS."""
    then: Counter[str] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)
    """In the order of the sources."""

    @property
    def going(self) -> list[str]:
        """The documents that would go."""
        return [change.id for change in self.changes if change.now == STAYS]


def ask(store: ObjectStore, manifest: DatasetManifest, settings: Sequence[Setting]) -> WhatIfResult:
    """Tries `settings` on the dataset in the folder `store`.

    Raises:
        SpecError: a setting is no threshold of a rule that the dataset was built with, or its value is not allowed.
    """
    spec = DatasetBuildSpec.model_validate_json(json.dumps(manifest.spec))
    other = with_settings(spec, settings)
    scores = _scores(store) if spec.toxicity is not None else {}
    answer = WhatIfResult()
    for table in ledger.measures(store):
        rows = zip(table["id"].to_pylist(), _fates(table, spec, scores), _fates(table, other, scores), strict=True)
        for id, now, then in rows:
            answer.now[_rule(now)] += 1
            answer.then[_rule(then)] += 1
            if (now is None) != (then is None):
                why = now or then
                assert why is not None
                change = Change(id, _rule(now), _rule(then), why.measure, why.value, why.threshold)
                answer.changes.append(change)
    return answer


def with_settings(spec: DatasetBuildSpec, settings: Sequence[Setting]) -> DatasetBuildSpec:
    """The spec with other thresholds.

    Raises:
        SpecError: as `ask`.
    """
    allowed = list(_thresholds(spec))
    document = spec.document()
    for setting in settings:
        if str(setting) not in allowed:
            meant = near(str(setting), allowed)
            remedy = f"did you mean {meant}?" if meant else "add the rule to the dataset's document, and build it"
            raise SpecError(
                explain(
                    f"--set {setting}",
                    found="no threshold that this dataset was built with",
                    allowed=", ".join(allowed) or "none: it was built without rules that measure",
                    remedy=remedy,
                )
            )
        parent = next((each for each in document["filters"] if setting.rule in each), document)
        parent[setting.rule][setting.name] = setting.value
        try:
            spec = DatasetBuildSpec.model_validate_json(json.dumps(document))
        except (ValidationError, TypeError) as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            remedy = "see docs/reference.md for what each threshold may be"
            raise SpecError(
                explain(f"--set {setting}", found=repr(setting.value), allowed=said, remedy=remedy)
            ) from error
    return spec


def excerpts(store: ObjectStore, ids: Sequence[str]) -> dict[str, str]:
    """The beginnings of the given documents, out of the ledger."""
    tables = [read(store, ["id", "excerpt"]) for read in (ledger.read_kept, ledger.read_removed)]
    wanted = [table.filter(pc.is_in(table["id"], pa.array(ids, pa.string()))) for table in tables]
    return {row["id"]: row["excerpt"] for table in wanted for row in table.to_pylist()}


def tokens_of(store: ObjectStore, ids: Sequence[str]) -> tuple[int, int]:
    """How many of the given documents are in the dataset, and their tokens."""
    kept = ledger.read_kept(store, ["id", "tokens"])
    kept = kept.filter(pc.is_in(kept["id"], pa.array(ids, pa.string())))
    return len(kept), int(sum(kept["tokens"].to_pylist()))


def _thresholds(spec: DatasetBuildSpec) -> Iterator[str]:
    """The thresholds that can be changed, as a user spells them."""
    for bound in bounds(spec.filters):
        side = "min" if bound.is_minimum else "max"
        yield f"{bound.rule}.{side}{bound.measure[0].upper()}{bound.measure[1:]}"
    if any(each.language is not None for each in spec.filters):
        yield "language.keep"
    if spec.toxicity is not None:
        yield "toxicity.threshold"


def _fates(table: pa.Table, spec: DatasetBuildSpec, scores: dict[str, float]) -> list[Decision | None]:
    """Why each document goes, or None."""
    decisions = decide(table, spec.filters)
    if spec.toxicity is None:
        return decisions
    threshold = spec.toxicity.threshold
    for row, id in enumerate(table["id"].to_pylist()):
        if decisions[row] is None and (score := scores.get(id, 0.0)) > threshold:
            decisions[row] = Decision(TOXICITY, "score", score, threshold)
    return decisions


def _rule(decision: Decision | None) -> str:
    return STAYS if decision is None else decision.rule


def _scores(store: ObjectStore) -> dict[str, float]:
    tables = [read_table(store, info.path) for info in store.list(f"{SCORES}/part-")]
    return {id: score for table in tables for id, score in zip(*(c.to_pylist() for c in table.columns), strict=True)}
