"""The user stops a run, and lets it go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]


def test_suspending_stops_the_pods_and_resuming_goes_on_in_another_attempt(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.edit(suspend=True)
    run.reconcile()
    assert (run.status["phase"], run.said("Suspended"), run.objects) == ("Suspended", ("True", "SuspendedByUser"), {})
    assert "startTime" not in run.status
    run.edit(suspend=False)
    run.reconcile()
    assert (run.said("Suspended"), run.status["attempt"], run.made) == (
        ("False", "Resumed"), 2, ["tiny-ptr-uid-0-1", "tiny-ptr-uid-0-2"],
    )  # fmt: skip
    assert run.status["restarts"] == 0


def test_a_run_that_is_suspended_from_the_start_makes_nothing(cluster: Make) -> None:
    run = cluster(suspend=True)
    run.reconcile()
    assert (run.status["phase"], run.status["attempt"], run.said("Accepted")) == ("Suspended", 0, ("True", "Valid"))
