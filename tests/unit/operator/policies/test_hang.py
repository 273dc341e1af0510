"""A run that says nothing new for too long is ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]


def test_a_run_that_says_nothing_new_is_hung_after_its_time_and_a_margin(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.says(30, saved=20)
    run.reconcile()
    run.wait(200)
    run.says(31, saved=20)
    assert run.reconcile().requeue_after == 360
    run.wait(361)
    run.reconcile()
    assert run.status["lastFailure"]["reason"] == "Hung"
    assert (run.status["attempt"], run.status["restarts"]) == (2, 1)
    assert [key.name for key in run.objects if key.kind == "Job"] == ["tiny-ptr-uid-0-2"]


@pytest.mark.parametrize("seconds", [86_400, -86_400])
def test_a_clock_that_is_set_hangs_no_run(cluster: Make, seconds: float) -> None:
    run = cluster()
    run.run()
    run.says(30, saved=20)
    run.reconcile()
    run.set_clock(seconds)
    run.reconcile()
    assert (run.status["phase"], run.status["attempt"], run.status["restarts"]) == ("Running", 1, 0)


def test_a_start_may_take_three_times_as_long(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.says(0, stage="compiling")
    assert run.reconcile().requeue_after == 960


def test_a_run_that_was_never_heard_is_not_judged(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.wait(86_400)
    run.reconcile()
    assert run.status["phase"] == "Running"
