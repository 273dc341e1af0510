"""What a driver writes into its log comes out again, among whatever else is written there."""

from __future__ import annotations

import time

import pytest

from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import DatasetProgress, Failure
from kindling_dataprep.executors.relay import LogWriter, split
from kindling_storage.outage import note_outage, note_recovery

HALF = Progress(message="Reading 3 files", dataset=DatasetProgress(stage="reading", percent=50))
LAST = Progress(state="Failed", message="no", failure=Failure(reason="UserError", message="line one\nline two"))


def test_the_newest_document_counts_and_the_rest_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    writer = LogWriter()
    writer.write(HALF, force=True)
    print("a warning of some library")
    writer.write(LAST)
    assert split(capsys.readouterr().out.splitlines()) == (LAST, ["a warning of some library"])


def test_the_newest_document_is_written_now_and_then_and_only_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kindling_dataprep.executors.relay.INTERVAL_SECONDS", 0.2)
    writer = LogWriter()
    for percent in range(100):
        writer.write(Progress(dataset=DatasetProgress(percent=percent)))
    time.sleep(0.5)
    said = capsys.readouterr().out.splitlines()
    writer.write(LAST)
    assert len(said) <= 2, "some of them, if they took that long, and the newest"
    newest, _ = split(said)
    assert newest is not None
    assert newest.dataset is not None
    assert newest.dataset.percent == 99


def test_a_store_that_is_waited_for_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    note_outage("here", "no answer", "waiting for a store")
    try:
        LogWriter().write(HALF, force=True)
    finally:
        note_recovery("here")
    newest, _ = split(capsys.readouterr().out.splitlines())
    assert newest is not None
    assert (newest.trouble, newest.message) == ("StorageUnreachable", "waiting for a store; Reading 3 files")


def test_half_a_line_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    LogWriter().write(HALF, force=True)
    line = capsys.readouterr().out.strip()
    assert split([line, line[:-5]]) == (HALF, [])
    assert split([]) == (None, [])
