"""A large file is read in spans, and no document, number or fault depends on where they begin."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindling_api.errors import DataError
from kindling_api.v1alpha1.dataset_build import Source
from kindling_dataprep.executors import tasks
from kindling_dataprep.records import Document, Removal, Span
from kindling_dataprep.steps import faults, formats, scan
from kindling_dataprep.steps.read import list_inputs, read
from kindling_storage import open_store

Records = list[Document | Removal]


def spans_of(path: Path) -> list[Span]:
    return list_inputs([Source(uri=str(path))], open_store=open_store)


def read_in(spans: list[Span]) -> Records:
    return [record for span in spans for record in read(span, Source(uri="x"))]


def lines(count: int) -> bytes:
    """JSON lines, some of them blank, some of them bad, with either line end."""
    written = []
    for number in range(count):
        record = json.dumps({"text": f"é {number} " * (number % 7)}, ensure_ascii=False)
        written.append("" if number % 11 == 5 else "{torn" if number % 13 == 7 else record)
    return "".join(line + ("\r\n" if len(line) % 2 else "\n") for line in written).encode()


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b'{"text": "no line end"}', b"x" * 5000, b"x" * 5000 + b"\n"])
@pytest.mark.parametrize("span_bytes", [1, 7, 100, 1000, 10**9])
def test_json_lines_are_the_same_however_they_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes, span_bytes: int
) -> None:
    monkeypatch.setattr(faults, "MAX_RECORD_BYTES", 2000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(200) + end)
    whole = read_in([Span.whole(spans_of(path)[0].file)])
    monkeypatch.setattr(scan, "SPAN_BYTES", span_bytes)
    monkeypatch.setattr(scan, "CHUNK_BYTES", 64)
    spans = spans_of(path)
    assert len(spans) == 1 if span_bytes == 10**9 else len(spans) > 5
    assert [span.stop for span in spans[:-1]] == [span.start for span in spans[1:]]
    assert sum(span.size for span in spans) == path.stat().st_size
    assert read_in(spans) == whole


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.sampled_from([b"\n", b'{"text": "a"}\n', b"{torn\n", b"x" * 30, b"\xff\r\n"]), max_size=40),
    span_bytes=st.integers(1, 50),
    chunk_bytes=st.integers(1, 50),
)
def test_any_bytes_are_the_same_however_they_are_cut(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], span_bytes: int, chunk_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    path.write_bytes(b"".join(parts))
    whole = read_in([Span.whole(spans_of(path)[0].file)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "SPAN_BYTES", span_bytes)
        patch.setattr(scan, "CHUNK_BYTES", chunk_bytes)
        assert read_in(spans_of(path)) == whole


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 350])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_large_text_is_several_documents_of_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    monkeypatch.setattr(formats, "TEXT_BYTES", 100)
    text = "".join(f"line {number}\n" for number in range(100))[:size]
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    documents = read_in(spans_of(path))
    assert [document.id for document in documents] == [f"0/{name}#{n + 1}" for n in range(len(documents))]
    texts = [document.text for document in documents if isinstance(document, Document)]
    assert "".join(texts) == text
    assert all(100 < len(each) <= 108 and each.endswith("\n") for each in texts[:-1])
    assert len(texts) == (1 if size <= 101 else 4)


def test_a_text_without_line_ends_is_one_bad_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "TEXT_BYTES", 100)
    monkeypatch.setattr(faults, "MAX_RECORD_BYTES", 200)
    path = tmp_path / "a.txt"
    path.write_bytes(b"first\n" + b"x" * 1000 + b"\n" + b"last\n")
    too_large, last = read_in(spans_of(path))
    assert isinstance(too_large, Removal)
    assert (too_large.id, too_large.measure, too_large.threshold) == ("0/a.txt#1", "bytes", 200.0)
    assert isinstance(last, Document)
    assert (last.id, last.text) == ("0/a.txt#2", "last\n")


def test_parquet_is_cut_at_row_groups_and_damage_costs_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"text {i} " * 50 for i in range(300)]
    pq.write_table(pa.table({"id": range(300), "text": texts}), path, row_group_size=100, use_dictionary=False)
    spans = spans_of(path)
    assert [(span.start, span.stop, span.first) for span in spans] == [(0, 1, 1), (1, 2, 101), (2, 3, 201)]
    assert sum(span.size for span in spans) > sum(map(len, texts))
    assert read_in(spans) == [Document(f"0/a.parquet#{i + 1}", 0, text) for i, text in enumerate(texts)]
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(1).data_page_offset
    data[start : start + 2000] = bytes(2000)
    path.write_bytes(data)
    for spans in (spans_of(path), [Span.whole(spans_of(path)[0].file)]):
        records = read_in(spans)
        bad = [record for record in records if isinstance(record, Removal)]
        assert [(record.id, record.measure) for record in bad] == [("0/a.parquet#101", "readable")]
        assert len(records) == 201


def test_a_missing_column_is_met_before_anything_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"spec\.sources\[0\]\.textField: found 'text', which a\.parquet does not have"):
        spans_of(tmp_path)


def test_no_task_is_larger_than_stated_but_for_what_is_never_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "SPAN_BYTES", 500)
    monkeypatch.setattr(tasks, "SMALLEST_TASK", 1500)
    monkeypatch.setattr(tasks, "LARGEST_TASK", 2000)
    (tmp_path / "a.jsonl").write_bytes(lines(2000))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(bytes(range(256)) * 1000))
    spans = spans_of(tmp_path)
    groups = tasks.split(spans)
    *of_lines, packed = groups
    assert len(of_lines) > 20
    assert all(len(group) == 1 and group[0].size <= 2000 for group in of_lines), "consecutive spans are joined"
    assert [span.file.path for span in packed] == ["b.jsonl.gz"]
    assert read_in([span for group in groups for span in group]) == read_in(spans)


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz"])
def test_what_unpacks_out_of_all_proportion_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("kindling_storage.jsonl.NEVER_TOO_MUCH", 1 << 20)
    path = tmp_path / name
    path.write_bytes(gzip.compress(b'{"text": "bomb"}\n' + b" \n" * (4 << 20)))
    *before, last = read_in(spans_of(path))
    assert isinstance(last, Removal)
    assert (last.measure, last.threshold) == ("unpacked", 200.0)
    assert len(before) == ("jsonl" in name)
