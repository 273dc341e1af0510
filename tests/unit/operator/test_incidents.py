"""What a run's process has mended by itself is told once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kindling_api.v1alpha1.incidents import MOST_INCIDENTS

Make = Callable[..., Any]


def incidents(*numbers: int) -> list[dict[str, str]]:
    """So many steps that were left out, by their numbers."""
    return [
        {"time": f"2026-05-01T12:00:{number:02}.000+00:00", "reason": "StepSkipped", "message": f"Step {number}."}
        for number in numbers
    ]


def told(run: Any) -> list[str]:
    return [event.message for event in run.events if event.reason == "StepSkipped"]


def test_each_is_an_event_once_and_stays_in_the_status_over_restarts(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.says(5, incidents=incidents(1))
    run.reconcile()
    run.says(6, incidents=incidents(1, 2))
    run.reconcile()
    assert told(run) == ["Step 1.", "Step 2."]
    run.says(3, incidents=None, restarts=1)
    run.reconcile()
    run.says(9, incidents=incidents(7), restarts=1)
    run.reconcile()
    assert told(run) == ["Step 1.", "Step 2.", "Step 7."]
    assert run.status["incidents"] == incidents(1, 2, 7)


def test_of_many_the_newest_are_remembered(cluster: Make) -> None:
    run = cluster()
    run.run()
    for number in range(MOST_INCIDENTS + 3):
        run.says(number, incidents=incidents(number))
        run.reconcile()
    assert run.status["incidents"] == incidents(*range(3, MOST_INCIDENTS + 3))
