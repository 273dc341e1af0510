"""What a driver writes into its log comes out again, among whatever else is written there."""

from __future__ import annotations

import pytest

from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import DatasetProgress, Failure
from kindling_dataprep.relay import LogWriter, split

HALF = Progress(message="Reading 3 files", dataset=DatasetProgress(stage="reading", percent=50))
LAST = Progress(state="Failed", message="no", failure=Failure(reason="UserError", message="line one\nline two"))


def test_the_newest_document_counts_and_the_rest_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    writer = LogWriter()
    writer.write(HALF)
    print("a warning of some library")
    writer.write(LAST)
    assert split(capsys.readouterr().out.splitlines()) == (LAST, ["a warning of some library"])


def test_a_document_is_written_now_and_then_unless_it_is_forced(capsys: pytest.CaptureFixture[str]) -> None:
    writer = LogWriter()
    for force in (False, False, True):
        writer.write(HALF, force)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_half_a_line_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    LogWriter().write(HALF)
    line = capsys.readouterr().out.strip()
    assert split([line, line[:-5]]) == (HALF, [])
    assert split([]) == (None, [])
