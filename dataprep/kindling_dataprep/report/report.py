"""The build as one page for people: what was read, what was removed and why, what stays, and what the tokens look like.

It is written beside the manifest and is no part of it, for it holds times. Everything in it comes from the ledger and
the work folder; of a large build, from an even choice of parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.products import REPORT, DatasetManifest
from kindling_api.v1alpha1.status import DocumentCounts
from kindling_dataprep.executors.tasks import Job
from kindling_dataprep.output import ledger, work
from kindling_dataprep.output.facts import DuplicateFacts
from kindling_dataprep.output.shards import read_index
from kindling_dataprep.records import BAD_RECORD, NO_PAGE
from kindling_dataprep.report import plots
from kindling_dataprep.stages import decontaminate, pii, toxicity
from kindling_dataprep.stages.clean import documents_path, measures_path
from kindling_dataprep.stages.per_part import removed_path
from kindling_dataprep.steps.decide import LANGUAGE, bounds
from kindling_dataprep.steps.measure import MEASURES
from kindling_dataprep.steps.pii import settings_of
from kindling_dataprep.steps.recall import Recall, measure_recall, planted_pairs
from kindling_storage import ObjectStore

PARTS_READ = 64
REMOVED_SHOWN = 4
"""For each rule."""
KEPT_SHOWN = 8
LANGUAGES_SHOWN = 12
LINES_SHOWN = 10
TOKENS_SHOWN = 420
PLANTED = 120
PLANTED_SIMILARITIES = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
PLANTED_CHARACTERS = (2_000, 60_000)
"""Shorter texts cannot come near a similarity asked for, and longer ones only take longer."""


@dataclass(frozen=True)
class Build:
    """What the report is about."""

    job: Job
    name: str
    manifest: DatasetManifest
    parts: int
    """Tasks of the first stage."""
    lines_removed: dict[str, int]
    """Lines taken out of documents, by rule."""
    duplicates: DuplicateFacts
    """What the second says."""
    personal: dict[str, int]
    """Pieces of personal information that were found, by kind."""
    damaged: Sequence[str]
    """The places that cost most bytes, a sentence of each."""
    seconds: dict[str, float]
    """How long each stage took."""


def write_report(build: Build) -> None:
    """Puts report.html into the product's folder."""
    build.job.store().put(REPORT, render(build).encode())


def render(build: Build) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kindling_dataprep.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html").render(**_facts(build))


def _facts(build: Build) -> dict[str, Any]:
    store, manifest, spec = build.job.store(), build.manifest, build.job.spec
    chosen = np.unique(np.linspace(0, build.parts - 1, min(build.parts, PARTS_READ)).astype(int)).tolist()
    kept = _tables(store, [ledger.part_path(ledger.KEPT, index) for index in chosen])
    ledgers = [ledger.part_path(ledger.REMOVED, index) for index in (*chosen, build.parts)]
    if spec.toxicity is not None:
        ledgers += [removed_path(toxicity.RULE, index, build.parts) for index in chosen]
    if spec.decontaminate:
        ledgers += [removed_path(decontaminate.RULE, index, build.parts) for index in chosen]
    if settings_of(spec) is not None:
        ledgers += [removed_path(pii.RULE, index, build.parts) for index in chosen]
    removed = _tables(store, ledgers)
    measures = _tables(store, [measures_path(index) for index in chosen])
    scored = chosen if spec.toxicity is not None else []
    scores = [work.read_table(store, ledger.part_path(toxicity.SCORES, index))["toxicity"] for index in scored]
    totals = {name: int(np.sum(kept[name].to_numpy())) for name in ("characters", "bytes", "words", "tokens")}
    return {
        "name": build.name,
        "manifest": manifest,
        "digest": manifest.digest,
        "sources": [source.uri for source in spec.sources],
        "funnel": funnel(manifest.documents),
        "damage": manifest.damage,
        "damaged": build.damaged,
        "lines_removed": dict(sorted(build.lines_removed.items())),
        "personal": dict(sorted(build.personal.items())),
        "unrecognised": decontaminate.unrecognised(build.job) if spec.decontaminate else [],
        "totals": totals,
        "bytes_per_token": totals["bytes"] / totals["tokens"],
        "tokens_per_word": totals["tokens"] / max(totals["words"], 1),
        "lengths": plots.lengths(kept["tokens"].to_numpy()),
        "measures": plots.measures(_panels(measures, scores, removed, spec)),
        "languages": _languages(measures, "language.language"),
        "rules_languages": _languages(measures, LANGUAGE),
        "lines": _repeated_lines(_tables(store, [ledger.part_path(ledger.LINES, index) for index in chosen])),
        "removed": _removed_samples(removed, manifest),
        "kept": _spread(kept, KEPT_SHOWN),
        "duplicates": build.duplicates,
        "recall": _recall(build),
        "tokens": _decoded(store, manifest),
        "seconds": build.seconds,
    }


def _tables(store: ObjectStore, paths: Sequence[str]) -> pa.Table:
    return pa.concat_tables([work.read_table(store, path) for path in paths])


def funnel(counts: DocumentCounts) -> list[dict[str, Any]]:
    """What is left after each rule, in the order in which the rules are asked."""
    order = (
        NO_PAGE,
        BAD_RECORD,
        "formatting",
        "boilerplate",
        "lines",
        *MEASURES,
        "exact",
        "minHash",
        toxicity.RULE,
        decontaminate.RULE,
        pii.RULE,
    )
    left = counts.read
    steps = [{"rule": "read", "removed": 0, "left": left}]
    for rule in sorted(counts.removed, key=order.index):
        left -= counts.removed[rule]
        steps.append({"rule": rule, "removed": counts.removed[rule], "left": left})
    return steps


def _panels(
    measures: pa.Table, scores: Sequence[pa.ChunkedArray], removed: pa.Table, spec: DatasetBuildSpec
) -> list[plots.Panel]:
    """One for each threshold, that of toxicity among them, those that removed most first."""
    broken = thresholds_broken(removed)
    panels = [
        plots.Panel(
            title=f"{bound.rule} · {bound.measure}",
            values=measures[f"{bound.rule}.{bound.measure}"].to_numpy().astype(float),
            threshold=float(bound.threshold),
            is_minimum=bound.is_minimum,
            removed=broken[bound.rule, bound.measure, bound.is_minimum],
        )
        for bound in bounds(spec.filters)
    ]
    if spec.toxicity is not None:
        values = np.concatenate([column.to_numpy() for column in scores]).astype(float)
        count = broken[toxicity.RULE, "score", False]
        panels.append(plots.Panel(f"{toxicity.RULE} · score", values, spec.toxicity.threshold, False, count))
    return sorted(panels, key=lambda panel: -panel.removed)


def thresholds_broken(removed: pa.Table) -> Counter[tuple[str, str, bool]]:
    """How many documents each threshold removed: by rule, measure, and whether it is a minimum."""
    columns = ("rule", "measure", "value", "threshold")
    rows = zip(*(removed[name].to_pylist() for name in columns), strict=True)
    return Counter(
        (rule, measure, value < threshold)
        for rule, measure, value, threshold in rows
        if value is not None and threshold is not None
    )


def _languages(measures: pa.Table, column: str) -> list[dict[str, Any]]:
    """The commonest languages, where they were identified, and how many of the measured documents are in each."""
    if column not in measures.column_names:
        return []
    counts = Counter(measures[column].to_pylist()).most_common(LANGUAGES_SHOWN)
    return [{"code": code, "documents": count, "fraction": count / len(measures)} for code, count in counts]


def _repeated_lines(lines: pa.Table) -> list[dict[str, Any]]:
    """Lines that came first of those taken out of most documents."""
    counts = Counter(excerpt for excerpt in lines["excerpt"].to_pylist() if excerpt).most_common(LINES_SHOWN)
    return [{"line": line, "documents": count} for line, count in counts]


def _removed_samples(removed: pa.Table, manifest: DatasetManifest) -> list[dict[str, Any]]:
    """Some removed documents of each rule, spread over its rows."""
    rules = removed["rule"].to_numpy(zero_copy_only=False)
    return [
        {
            "rule": rule,
            "count": manifest.documents.removed[rule],
            "rows": _spread(removed.filter(rules == rule), REMOVED_SHOWN),
        }
        for rule in manifest.documents.removed
        if (rules == rule).any()
    ]


def _spread(table: pa.Table, count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.take(_evenly(len(table), count)).to_pylist()
    return rows


def _evenly(total: int, count: int) -> list[int]:
    """At most `count` different numbers below `total`, from the middle of equal stretches."""
    stretches = min(total, count)
    return [(2 * number + 1) * total // (2 * stretches) for number in range(stretches)]


def _recall(build: Build) -> Recall | None:
    """How many pairs planted in this build's own text are found; None where there is no near-duplicate removal."""
    min_hash = build.job.spec.deduplicate.min_hash
    if min_hash is None:
        return None
    texts: list[str] = []
    shortest, longest = PLANTED_CHARACTERS
    for index in range(build.parts):
        table = work.read_table(build.job.store(), documents_path(index), ["text"])
        texts += [text for text in table["text"].to_pylist() if shortest <= len(text) <= longest]
        if len(texts) >= PLANTED:
            break
    pairs = planted_pairs(texts[:PLANTED], PLANTED_SIMILARITIES, build.job.spec.seed, shingle=min_hash.shingle)
    return measure_recall(pairs, min_hash) if pairs else None


def _decoded(store: ObjectStore, manifest: DatasetManifest) -> list[str]:
    """The first tokens of the first shard, each as text."""
    path = manifest.train[0].path
    index = read_index(store.get(f"{path}.idx"))
    width = np.dtype(index.dtype).itemsize
    tokens = np.frombuffer(store.get_range(f"{path}.bin", 0, TOKENS_SHOWN * width), dtype=index.dtype)
    tokenizer = Tokenizer.from_str(store.get(manifest.tokenizer.path).decode())
    return [tokenizer.decode([token], skip_special_tokens=False) for token in tokens.tolist()]
