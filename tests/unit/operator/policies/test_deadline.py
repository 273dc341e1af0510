"""A run has so much time, over all of its attempts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]


def test_a_deadline_ends_a_run_over_all_of_its_attempts(cluster: Make) -> None:
    run = cluster(activeDeadline="1h")
    run.run()
    assert run.reconcile().requeue_after == 3600
    run.wait(1800)
    run.loses(1)
    run.reconcile()
    run.wait(1800)
    run.reconcile()
    assert (run.status["phase"], run.said("Failed")) == ("Failed", ("True", "DeadlineExceeded"))
    assert [key.kind for key in run.objects] == []
