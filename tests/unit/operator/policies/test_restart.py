"""When the next attempt begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kindling_operator.moments import stamp

Make = Callable[..., Any]


def test_after_a_suspension_the_pods_that_save_are_waited_for(cluster: Make) -> None:
    run = cluster()
    run.run()
    leaving = run.pod()
    run.edit(suspend=True)
    run.reconcile()
    leaving["metadata"]["deletionTimestamp"] = stamp(run.now.replace(minute=1))
    run.pods = [leaving]
    run.edit(suspend=False)
    assert (run.reconcile().requeue_after, run.status["attempt"]) == (60, 1)
    run.pods = []
    run.reconcile()
    assert run.status["attempt"] == 2


def test_a_restart_that_is_due_later_says_when(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.fails(1, signal="SIGKILL")
    run.reconcile()
    run.schedule()
    run.reconcile()
    run.fails(1, signal="SIGKILL")
    assert run.reconcile().requeue_after == 5
    assert run.message("Restarting").endswith("Attempt 3 starts in 5 seconds.")
    assert run.status["attempts"][-1]["ended"] == stamp(run.now)
    run.wait(5)
    run.reconcile()
    assert run.status["attempt"] == 3
