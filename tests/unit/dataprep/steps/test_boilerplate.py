"""Which lines go, against a plain reference, whatever the tasks; and that the ledger says how many."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kindling_api.v1alpha1.dataset_build import Source
from kindling_api.v1alpha1.filters import Boilerplate
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_dataprep.build import build
from kindling_dataprep.output import ledger
from kindling_dataprep.records import Document
from kindling_dataprep.stages import line_counts
from kindling_dataprep.steps.boilerplate import host_of, line_hashes, without_boilerplate
from kindling_dataprep.steps.read import list_inputs, read
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import read_manifest

LINES = Boilerplate(min_documents=3, max_line_length=40, notices=False)


@pytest.mark.parametrize(
    "line",
    [
        *("Home | About us | Contact", "next › previous", "Skip to main content", "Back to top", "Accept all cookies"),
        *("This website uses cookies to improve your experience.", "We use cookies and similar technologies."),
        *(
            "© 2024 Acme Inc.",
            "Copyright (c) 2001-2024 Acme. All rights reserved.",
            "ALL RIGHTS RESERVED",
            "Privacy Policy",
        ),
    ],
)
def test_a_notice_goes_wherever_it_is(line: str) -> None:
    document = Document("0/a#1", 0, f"One.\n  {line}\nTwo.")
    assert without_boilerplate(document, (), Boilerplate()) == ("One.\nTwo.", [f"  {line}"])
    assert without_boilerplate(document, (), Boilerplate(notices=False)) == (document.text, [])


@pytest.mark.parametrize(
    "line",
    [
        *("Home", "Help", "News", "He said that all rights reserved to him were lost.", "(c) 1 the third case"),
        *("Search the house and/or the garden.", "We use cookies in the kitchen" * 8, "", "the privacy policy of cats"),
    ],
)
def test_prose_stays(line: str) -> None:
    document = Document("0/a#1", 0, f"One.\n{line}\nTwo.")
    assert without_boilerplate(document, (), Boilerplate()) == (document.text, [])


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://www.Example.org:8080/a?b", "example.org"),
        ("http://a.example.org/", "a.example.org"),
        ("", "source 3"),
        ("no url", "source 3"),
        ("http://[torn", "source 3"),
    ],
)
def test_the_host_is_that_of_the_url_or_else_the_source(url: str, host: str) -> None:
    assert host_of(Document("3/a#1", 3, "", url)) == host


def test_lines_of_different_hosts_are_different() -> None:
    here, there = (Document("0/a#1", 0, "One line", f"https://{host}/") for host in ("here.org", "there.org"))
    assert line_hashes(here, LINES).isdisjoint(line_hashes(there, LINES))
    assert line_hashes(here, LINES) == line_hashes(
        Document("1/b#1", 1, "  one\t LINE\n\n", "http://www.here.org"), LINES
    )


@pytest.mark.parametrize("most", [1, 2, 5])
def test_notes_are_sorted_distinct_and_few_for_a_line(most: int) -> None:
    chance = np.random.default_rng(1)
    notes = chance.integers(0, 9, (200, 2)).astype(np.uint64)
    by_line = defaultdict(set)
    for line, text in notes.tolist():
        by_line[line].add(text)
    expected = [[line, text] for line, texts in sorted(by_line.items()) for text in sorted(texts)[:most]]
    assert line_counts.distinct(notes, most).tolist() == expected
    assert line_counts.distinct(notes[:0], most).tolist() == []


def texts(count: int) -> list[str]:
    """Texts of lines that occur in some of them, two of the texts being copies."""
    chance = random.Random(7)
    lines = ["Menu", "Subscribe to our letter", "x" * 60, *(f"common line {number}" for number in range(12))]
    made = ["\n".join([*chance.sample(lines, 4), f"a line of its own, {n}", ""]) for n in range(count - 2)]
    return [*made, made[0], made[0].upper()]


def reference(texts: list[str], spec: Boilerplate) -> list[str]:
    """What is left, by the definition."""
    holders = defaultdict(set)
    for text in texts:
        for line in text.lower().split("\n"):
            holders[" ".join(line.split())].add(" ".join(text.lower().split()))
    return [
        "\n".join(
            line
            for line in text.split("\n")
            if not line or len(line) > spec.max_line_length or len(holders[line.lower()]) < spec.min_documents
        )
        for text in texts
    ]


def run(file) -> tuple[ObjectStore, DatasetManifest]:
    store = open_store(build(file, Tracker(ProgressWriter(None))).uri)
    manifest = read_manifest(store, DatasetManifest)
    assert manifest is not None
    return store, manifest


def test_a_build_takes_out_what_the_reference_does_however_it_is_cut(tmp_path: Path, new_run, monkeypatch) -> None:
    given = texts(30)
    for number in range(3):
        rows = given[10 * number : 10 * number + 10]
        (tmp_path / f"{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    rule = {"boilerplate": LINES.document()}
    form = {"tokenizer": {"byte": {}}, "deduplicate": {"exact": False}, "validation": {"tail": 0.01}}
    monkeypatch.setattr("kindling_dataprep.executors.tasks.SMALLEST_TASK", 1)
    monkeypatch.setattr("kindling_dataprep.executors.tasks.TASKS_AIMED_AT", 3)
    monkeypatch.setattr("kindling_dataprep.stages.line_counts.INPUT_BYTES_IN_RANGE", 500)
    store, manifest = run(new_run(tmp_path / "*.jsonl", filters=[rule], **form))
    expected = reference(given, LINES)
    tokens = np.concatenate(
        [np.frombuffer(store.get(f"{part}-00000.bin"), np.uint16) for part in ("train", "validation")]
    )
    left = bytes(np.where(tokens == 256, 0, tokens).astype(np.uint8)).decode().split("\0")[:-1]
    assert left == expected
    rows = ledger.read_lines(store).to_pylist()
    assert {row["rule"] for row in rows} == {"boilerplate"}
    taken = [given[n].count("\n") - expected[n].count("\n") for n in range(30)]
    assert [row["lines"] for row in rows] == [count for count in taken if count]
    assert f"boilerplate took {sum(taken)} lines out of documents" in store.get("report.html").decode()
    monkeypatch.undo()
    whole, again = run(new_run(tmp_path / "*.jsonl", filters=[rule], store="another", **form))
    assert whole.get("train-00000.bin") == store.get("train-00000.bin")
    assert again.documents == manifest.documents


def test_a_document_of_nothing_else_is_in_the_ledger(tmp_path: Path, new_run) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "Home | Contact\\n\\n"}\n{"text": "Home | Contact\\nA page."}\n')
    store, manifest = run(new_run(tmp_path / "a.jsonl", filters=[{"boilerplate": {}}], tokenizer={"byte": {}}))
    assert manifest.documents.removed == {"boilerplate": 1}
    (removed,) = ledger.read_removed(store).to_pylist()
    assert (removed["id"], removed["measure"], removed["value"]) == ("0/a.jsonl#1", "characters", 0)
    assert [row["excerpt"] for row in ledger.read_lines(store).to_pylist()] == ["Home | Contact"] * 2


def test_documents_know_where_they_were_found(tmp_path: Path) -> None:
    where = "http://a.example.org/"
    (tmp_path / "a.jsonl").write_text(f'{{"text": "one", "url": "{where}"}}\n{{"text": "two", "url": 3}}\n')
    pq.write_table(pa.table({"url": [where, None], "text": ["one", "two"]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"url": [where]}), tmp_path / "c.parquet")
    head = f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {where}\r\nContent-Length: 3\r\n\r\n"
    (tmp_path / "d.wet").write_text(f"{head}one\r\n\r\n")
    found = {}
    for name, field in (("a.jsonl", "text"), ("b.parquet", "text"), ("c.parquet", "url"), ("d.wet", "text")):
        source = Source(uri=str(tmp_path / name), text_field=field)
        spans = list_inputs([source], open_store=open_store)
        found[name] = [document.url for span in spans for document in read(span, source)]
    assert found == {"a.jsonl": [where, ""], "b.parquet": [where, ""], "c.parquet": [""], "d.wet": [where]}
