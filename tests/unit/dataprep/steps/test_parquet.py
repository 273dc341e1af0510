"""Parquet is read by another process, and what becomes of that costs what was being read."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kindling_api.base import digest_of
from kindling_dataprep.records import Document, InputFile, Removal, Span
from kindling_dataprep.steps import parquet, parquet_reader
from kindling_dataprep.steps.parquet import read_parquet
from kindling_dataprep.steps.parquet_reader import ParquetReader

ROWS, GROUP = 1000, 250


@pytest.fixture(autouse=True)
def _processes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(parquet_reader._Process, "_free", [])
    yield
    parquet_reader._end_all()


def parquet_file(text: Callable[[int], str] = "Text number {}.".format) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table({"text": [text(number) for number in range(ROWS)]}), written, row_group_size=GROUP)
    return written.getvalue()


def records_of(data: bytes) -> Iterator[Document | Removal]:
    file = InputFile(0, "file:///texts", "a.parquet", len(data), digest_of(data), "parquet")
    return read_parquet(io.BytesIO(data), Span.whole(file), "text")


def test_a_process_that_ends_costs_the_rest_of_its_row_group() -> None:
    found = []
    for record in records_of(parquet_file(long_text)):
        found.append(record)
        if len(found) == GROUP + 1:
            subprocess.run(["pkill", "-KILL", "-P", str(os.getpid()), "-f", parquet_reader.PROCESS], check=True)
    (lost,) = [record for record in found if isinstance(record, Removal)]
    assert "ended the process that read it (SIGKILL)" in lost.excerpt
    first = int(lost.id.rpartition("#")[2]) - 1
    texts = [record.text for record in found if isinstance(record, Document)]
    assert GROUP < first < 2 * GROUP
    assert texts == [long_text(row) for row in range(ROWS) if not first <= row < 2 * GROUP]


def long_text(row: int) -> str:
    """So long that few of them are on their way."""
    return f"Text number {row}." + " And so on." * 2000


def test_a_row_group_that_unpacks_to_more_than_may_be_held_costs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_reader, "READER_BYTES", 100 << 20)
    bomb = parquet_file(lambda number: "0" * (4 << 20) if number == 5 * GROUP // 2 else f"Text number {number}.")
    assert len([each for each in records_of(bomb) if isinstance(each, Document)]) == ROWS
    parquet_reader._end_all()
    monkeypatch.setattr(parquet_reader, "READER_BYTES", 1 << 20)
    found = list(records_of(bomb))
    (lost,) = [record for record in found if isinstance(record, Removal)]
    assert "failed" in lost.excerpt
    assert len(found) > 3 * GROUP


def test_a_file_that_is_left_in_the_middle_is_no_part_of_the_next() -> None:
    records = records_of(parquet_file())
    next(records)
    records.close()
    assert [record.text for record in records_of(parquet_file("Other {}.".format)) if isinstance(record, Document)] == [
        f"Other {number}." for number in range(ROWS)
    ]


def test_one_process_reads_file_after_file() -> None:
    for _ in range(3):
        assert len(list(records_of(parquet_file()))) == ROWS
    assert len(parquet_reader._Process._free) == 1


def test_the_footer_alone_is_read_for_the_row_groups() -> None:
    data = parquet_file()
    with ParquetReader(io.BytesIO(data), len(data), "text") as file:
        file.open()
        assert [group.rows for group in file.groups] == [GROUP] * (ROWS // GROUP)
        assert sum(group.size for group in file.groups) < len(data)


def test_a_row_group_that_is_left_in_the_middle_is_no_part_of_the_next() -> None:
    data = parquet_file(long_text)
    with ParquetReader(io.BytesIO(data), len(data), "text") as file:
        file.open()
        next(file.batches(0, ["text"]))
        found = [text for batch in file.batches(1, ["text"]) for text in batch["text"].to_pylist()]
    assert found == [long_text(row) for row in range(GROUP, 2 * GROUP)]


def test_what_arrow_makes_nothing_of_here_costs_its_row_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of a dictionary may lead nowhere: what a process hands over is not yet what it says it is."""
    column, met = parquet._column, []

    def fails_once(*given: Any) -> pa.Array:
        met.append(given)
        if len(met) == 3:
            raise pa.ArrowIndexError("index 7 out of bounds")
        return column(*given)

    monkeypatch.setattr(parquet, "_column", fails_once)
    found = list(records_of(parquet_file()))
    (lost,) = [record for record in found if isinstance(record, Removal)]
    assert "index 7 out of bounds" in lost.excerpt
    assert [record.text for record in found[-GROUP:] if isinstance(record, Document)] == [
        f"Text number {row}." for row in range(ROWS - GROUP, ROWS)
    ]
