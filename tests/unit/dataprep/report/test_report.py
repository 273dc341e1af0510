"""The report page says what the ledger says, and needs nothing from outside."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from kindling_api.v1alpha1.status import DocumentCounts
from kindling_dataprep.build import build
from kindling_dataprep.report import plots
from kindling_dataprep.report.report import funnel
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import open_store

RULES = [{"formatting": {}}, {"gopherQuality": {"minWords": 5}}, {"gopherRepetition": {}}]


@pytest.mark.slow
def test_the_page_holds_counts_samples_and_plots_and_loads_nothing(corpus: Path, new_run) -> None:
    (corpus / "markup.txt").write_text("<script>alert(1)</script> & more words than five, to be sure of it")
    result = build(new_run(corpus, filters=RULES), Tracker(ProgressWriter(None)))
    page = open_store(result.uri).get("report.html").decode()
    HTMLParser().feed(page)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))
    assert f"{result.documents.kept:,} kept" in text
    for rule, count in result.documents.removed.items():
        assert f"{rule} {count:,} removed" in text
    assert "recall 1.000" in text
    assert page.count("<svg") == 2
    assert "<script>alert" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", page)


def test_the_page_shows_languages_scores_and_lines_where_they_were_looked_at(tmp_path: Path, new_run) -> None:
    texts = [
        "Home | Contact\nThe first one is in English, as is the second.",
        "This is the second of the English ones.",
    ]
    texts += ["Der dritte Text aber ist auf Deutsch geschrieben, und das merkt man ihm an."]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    filters = [{"boilerplate": {}}, {"language": {"keep": ["en", "de"], "minScore": 0.0}}]
    file = new_run(tmp_path / "a.jsonl", filters=filters, toxicity={}, tokenizer={"byte": {}})
    page = open_store(build(file, Tracker(ProgressWriter(None))).uri).get("report.html").decode()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "language documents en 2 de 1" in text
    assert "toxicity: 0 removed at &gt; 0.5" in text
    assert "of documents Home | Contact 1" in text


def test_a_removal_counts_at_the_threshold_that_it_broke(tmp_path: Path, new_run) -> None:
    texts = ["The end of it.", *["The words that are here and have to be of a middling length."] * 2]
    texts += [f"The incomprehensibilities of internationalisations {number}" for number in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    rules = {"minWords": 5, "minMeanWordLength": 2.0, "maxMeanWordLength": 9.0, "minAlphabeticWordFraction": 0.0}
    file = new_run(tmp_path / "a.jsonl", filters=[{"gopherQuality": rules}], tokenizer={"byte": {}})
    page = open_store(build(file, Tracker(ProgressWriter(None))).uri).get("report.html").decode()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    told = re.findall(r"gopherQuality: (\d) removed at (&[lg]t; \d+) (mean word length|words)", text)
    assert sorted(told) == [
        ("0", "&gt; 100000", "words"),
        ("0", "&lt; 2", "mean word length"),
        ("1", "&lt; 5", "words"),
        ("3", "&gt; 9", "mean word length"),
    ]


def test_the_funnel_follows_the_order_in_which_rules_are_asked() -> None:
    removed = dict.fromkeys(("badRecord", "exact", "fineWeb", "formatting", "gopherQuality", "minHash"), 1)
    assert [(step["rule"], step["left"]) for step in funnel(DocumentCounts(read=10, kept=4, removed=removed))] == [
        ("read", 10),
        ("badRecord", 9),
        ("formatting", 8),
        ("gopherQuality", 7),
        ("fineWeb", 6),
        ("exact", 5),
        ("minHash", 4),
    ]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([0.0] * 50, id="all alike"),
        pytest.param([0.5], id="one"),
        pytest.param([0.0, 1e9], id="far apart"),
        pytest.param([], id="none"),
    ],
)
def test_a_measure_is_drawn_whatever_its_values(values: list[float]) -> None:
    panel = plots.Panel("rule · someMeasure", np.array(values), 0.3, False, 1)
    assert plots.measures([panel]).count("<svg") == 1


def test_a_plot_is_the_same_bytes_each_time() -> None:
    assert plots.lengths(np.array([1, 5, 700])) == plots.lengths(np.array([1, 5, 700]))
