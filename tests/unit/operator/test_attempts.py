"""How long the next attempt waits, and which ones were in vain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kindling_api.v1alpha1.status import AttemptStatus
from kindling_operator.attempts import barren, delay_seconds

Make = Callable[..., Any]


def attempts(*endings: tuple[str, int, int]) -> list[AttemptStatus]:
    """Reason, newest checkpoint and length in seconds of each."""
    start = "2026-05-01T12:00:00Z"
    ends = [f"2026-05-01T12:{length // 60:02}:{length % 60:02}Z" for _, _, length in endings]
    return [
        AttemptStatus(attempt=number, started=start, ended=end, reason=reason, saved=saved)  # type: ignore[arg-type]
        for number, ((reason, saved, _), end) in enumerate(zip(endings, ends, strict=True), 1)
    ]


DEAD = ("RankFailed", 0, 9)


@pytest.mark.parametrize(
    ("endings", "delay"),
    [
        ([DEAD], 0),
        ([DEAD, DEAD], 5),
        ([DEAD, DEAD, DEAD], 10),
        ([DEAD] * 9, 300),
        ([DEAD, DEAD, ("RankFailed", 50, 9)], 0),
        ([DEAD, DEAD, ("RankFailed", 50, 9), ("RankFailed", 50, 9)], 0),
        ([DEAD, DEAD, ("RankFailed", 0, 601)], 0),
        ([("NodeLost", 0, 9), ("NodeLost", 0, 9)], 5),
        ([("StorageUnreachable", 0, 9)] * 9, 30),
        ([DEAD, DEAD, ("SuspendedByUser", 0, 9)], 0),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, list) else None,
)
def test_the_first_restart_is_immediate_and_those_in_vain_are_ever_later(
    endings: list[tuple[str, int, int]], delay: float
) -> None:
    assert delay_seconds(attempts(*endings)) == delay


def test_attempts_in_vain_are_counted_from_the_last_one_that_saved() -> None:
    assert barren(attempts(("RankFailed", 10, 9), ("Hung", 10, 9), ("RankFailed", 10, 9))) == 2
    assert barren(attempts(("RankFailed", 10, 9), ("Hung", 10, 9), ("RankFailed", 10, 9)), alike=True) == 1
