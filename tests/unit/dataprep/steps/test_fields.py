"""The text of a record is found where `textField` says, in any form in which it is kept, or what is there is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kindling_api.errors import DataError
from kindling_api.v1alpha1.dataset_build import Source
from kindling_dataprep.build import build
from kindling_dataprep.records import Document, Removal
from kindling_dataprep.steps.read import list_inputs, read
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import open_store

TEXTS = ["one", "two", "naïve"]


def read_all(path: Path, field: str) -> list[str]:
    """Texts, and what was found instead."""
    source = Source(uri=str(path), text_field=field)
    records = [record for span in list_inputs([source], open_store=open_store) for record in read(span, source)]
    return [
        each.text if isinstance(each, Document) else each.note or each.measure
        for each in records
        if isinstance(each, Document | Removal)
    ]


@pytest.mark.parametrize(
    ("record", "field", "found"),
    [
        ({"doc": {"text": "one", "id": 1}}, "doc.text", "one"),
        ({"a": {"b": {"c": "one"}}}, "a.b.c", "one"),
        ({"doc.text": "one", "doc": {"text": "two"}}, "doc.text", "one"),
        ({"doc": "one"}, "doc.text", "no string in 'doc.text'; its fields: doc"),
        ({"id": 1, "body": "x", "meta": {"url": "y"}}, "text", "no string in 'text'; its fields: body, meta.url, id"),
        ({}, "text", "no string in 'text'; its fields: none"),
        ([1], "text", "no JSON object with 'text'"),
    ],
)
def test_a_field_is_found_along_its_name_or_those_that_are_there_are_told(
    tmp_path: Path, record: Any, field: str, found: str
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    assert read_all(tmp_path / "a.jsonl", field) == [found]


COLUMNS = {
    "string": pa.array(TEXTS),
    "large string": pa.array(TEXTS, pa.large_string()),
    "string view": pa.array(TEXTS, pa.string_view()),
    "binary": pa.array([text.encode() for text in TEXTS]),
    "large binary": pa.array([text.encode() for text in TEXTS], pa.large_binary()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "dictionary of binary": pa.array([text.encode() for text in TEXTS]).dictionary_encode(),
}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
@pytest.mark.parametrize("nested", [False, True], ids=["a column", "a field"])
def test_a_column_of_texts_is_read_in_any_form(tmp_path: Path, column: pa.Array, nested: bool) -> None:
    numbers = pa.array([1, 2, 3])
    columns = {"doc": pa.StructArray.from_arrays([column, numbers], ["text", "id"])} if nested else {"text": column}
    pq.write_table(pa.table({**columns, "id": numbers}), tmp_path / "a.parquet")
    assert read_all(tmp_path / "a.parquet", "doc.text" if nested else "text") == TEXTS


def test_a_shard_without_a_text_costs_its_own_rows(tmp_path: Path, new_run) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": pa.nulls(2)}), tmp_path / "in" / "a.parquet")
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in" / "b.parquet")
    fields = {"tokenizer": {"byte": {}}, "filters": [], "badRecords": {"maxFraction": 0.5}}
    counts = build(new_run(tmp_path / "in", **fields), Tracker(ProgressWriter(None))).documents
    assert (counts.read, counts.kept) == (5, 3)


@pytest.mark.parametrize("field", ["body", "doc.body", "text.x", "id", "doc"])
def test_a_column_that_holds_no_text_is_refused_with_those_that_there_are(tmp_path: Path, field: str) -> None:
    doc = pa.StructArray.from_arrays([pa.array(["x"])], ["text"])
    pq.write_table(pa.table({"text": ["x"], "doc": doc, "id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=rf"sources\[0\]\.textField: found '{field}'.*text \(string\), doc \(struct"):
        read_all(tmp_path / "a.parquet", field)


def test_a_wrong_text_field_is_told_with_the_fields_that_there_are(tmp_path: Path, new_run) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"id": n, "body": "x"}) for n in range(300)))
    with pytest.raises(
        DataError,
        match=r"300 unreadable records out of 300 \(0/a.jsonl#1 \(no string in 'text'; its "
        r"fields: body, id\).*To fix it: name the right field in textField",
    ):
        build(new_run(tmp_path / "a.jsonl"), Tracker(ProgressWriter(None)))
