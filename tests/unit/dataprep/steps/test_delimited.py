"""CSV and TSV give a document a row, and a row that is none costs itself."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest

from kindling_api.errors import DataError
from kindling_api.v1alpha1.dataset_build import Source
from kindling_dataprep.records import Document, Removal
from kindling_dataprep.steps import faults
from kindling_dataprep.steps.read import list_inputs, read
from kindling_storage import open_store

TEXTS = ["one", "two, with a comma", 'three "quoted"', "four\nover\n\nlines", "fünf\tand a tab", "", "\u2028 six"]


def written(delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([["id", "text", "url"], *([str(n), text, f"u{n}"] for n, text in enumerate(TEXTS))])
    return file.getvalue().encode()


def read_bytes(folder: Path, name: str, data: bytes) -> list[Document | Removal]:
    (folder / name).write_bytes(data)
    source = Source(uri=str(folder / name))
    records = [record for span in list_inputs([source], open_store=open_store) for record in read(span, source)]
    return [each for each in records if isinstance(each, Document | Removal)]


def shown(records: list[Document | Removal]) -> list[str]:
    return [each.text if isinstance(each, Document) else f"bad: {each.measure}" for each in records]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", written(",")),
        ("a.tsv", written("\t")),
        ("a.csv.gz", gzip.compress(written(","))),
        ("a.tsv.gz", gzip.compress(written("\t"))),
        ("a.csv", b"\xef\xbb\xbf" + written(",").removesuffix(b"\r\n")),
    ],
    ids=["CSV", "TSV", "packed CSV", "packed TSV", "marked, without a last line end"],
)
def test_each_row_is_a_document(tmp_path: Path, name: str, data: bytes) -> None:
    records = read_bytes(tmp_path, name, data)
    assert shown(records) == TEXTS
    assert [each.id for each in records] == [f"0/{name}#{number}" for number in range(1, len(TEXTS) + 1)]
    assert [each.url for each in records if isinstance(each, Document)] == [f"u{n}" for n in range(len(TEXTS))]


def test_a_row_that_is_none_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "MAX_RECORD_BYTES", 100)
    large, latin = b"x" * 200, "é".encode("latin-1") * 9
    data = b"text,id\none,1\nonly\n" + large + b",2\n" + latin + b",3\ntwo,4\n"
    records = read_bytes(tmp_path, "a.csv", data)
    assert shown(records) == ["one", "bad: row", "bad: bytes", "bad: encoding", "two"]
    assert [each.unread for each in records if isinstance(each, Removal)] == [5, 203, 12]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'"never closed,1\ntwo,2\n"three",3\n', ["bad: row", "two", "three"]),
        (b'5" disks,1\ntwo,2\nthree,3\n', ['5" disks', "two", "three"]),
        (b'5" disks,1\ntwo,2\n3" disks,3\nfour,4\n', ['5" disks', "two", '3" disks', "four"]),
        (b'"two\nlines",1\n"never,2\nthree,3', ["two\nlines", "bad: row", "three"]),
    ],
    ids=["at a beginning", "within a text", "within two", "after lines that belong together"],
)
def test_a_quote_too_many_costs_no_row_but_its_own(tmp_path: Path, data: bytes, expected: list[str]) -> None:
    assert shown(read_bytes(tmp_path, "a.csv", b"text,id\n" + data)) == expected
    assert shown(read_bytes(tmp_path, "b.csv.gz", gzip.compress(b"text,id\n" + data))) == expected


def test_rows_that_are_given_back_take_time_in_proportion(tmp_path: Path) -> None:
    records = read_bytes(tmp_path, "a.csv", b"text,id\n" + b'"x,1\n"y,2\nz,3\n' * 20_001)
    assert 20_000 < len(records) <= 60_003


def test_a_file_that_ends_early_counts_its_bytes(tmp_path: Path) -> None:
    packed = gzip.compress(b"text,id\n" + b"one,1\n" * 1000)
    *documents, last = read_bytes(tmp_path, "a.csv.gz", packed[:-8])
    assert isinstance(last, Removal)
    assert (last.measure, last.offset, last.unread) == ("readable", 0, len(packed) - 8)
    assert len(documents) == 1000


def test_a_column_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sources\[0\]\.textField: found 'text'.*allowed: one of: id, body"):
        read_bytes(tmp_path, "a.csv", b"id,body\n1,x\n")
