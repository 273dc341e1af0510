"""What Kueue is told of the work that is lost if it stops a run: of priorities alike it stops what costs least."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kindling_operator.policies.at_risk import KEPT_PLACE, MOST_AT_RISK, boost_of

Make = Callable[..., Any]


def test_more_is_at_risk_the_longer_the_last_commit_is_ago_until_all_of_it_is(cluster: Make) -> None:
    run = admitted(cluster)
    run.says(1)
    assert run.reconcile().requeue_after == 15
    assert "annotations" not in run.workload["metadata"], "nothing is at risk yet, which is what nothing says"
    run.wait(60)
    run.reconcile()
    assert told(run) == (60, 28)
    run.says(50, saved=50)
    run.reconcile()
    assert told(run) == (0, 0)
    run.wait(600)
    run.says(90)
    run.reconcile()
    assert told(run) == (600, 59)
    run.admit(yes=False)
    run.reconcile()
    assert told(run) == (0, 0), "what waits has saved all, and stands before nobody"


def test_a_workload_that_says_so_already_is_not_written_again(cluster: Make) -> None:
    run = admitted(cluster)
    run.wait(600)
    assert run.reconcile().change == ()
    run.wait(15)
    assert run.reconcile().change == ()
    assert told(run) == (600, 59), "a minute and more must go by until it is a matter of proportion"


def test_a_workload_that_was_not_looked_at_is_not_written(cluster: Make) -> None:
    run = admitted(cluster)
    workload, run.workload = run.workload, None
    run.wait(600)
    assert run.reconcile().change == ()
    assert "annotations" not in workload["metadata"]


def test_a_run_that_lost_a_node_stays_before_those_that_only_wait(cluster: Make) -> None:
    run = admitted(cluster)
    run.loses(1, "DeletionByTaintManager")
    run.reconcile()
    run.wait(60)
    run.reconcile()
    assert (run.status["phase"], run.status["attempt"]) == ("Queued", 2)
    run.queues()
    run.reconcile()
    assert told(run) == (0, KEPT_PLACE)
    run.admit()
    run.schedule()
    run.wait(60)
    run.reconcile()
    run.wait(60)
    run.reconcile()
    assert told(run) == (60, KEPT_PLACE + 28), "nobody who has lost a node as well takes it away again"


@pytest.mark.parametrize(("seconds", "boost"), [(-1, 0), (0, 0), (10, 10), (60, 28), (9e3, 98), (1e4, 99), (1e9, 99)])
def test_the_boost_rises_with_the_logarithm_of_the_seconds_and_crosses_no_class(seconds: float, boost: int) -> None:
    assert boost_of(seconds) == boost <= MOST_AT_RISK < KEPT_PLACE


def admitted(cluster: Make) -> Any:
    """A run of two pods, let in by Kueue just now."""
    run = cluster(queue="team-a")
    run.reconcile()
    run.queues()
    run.admit()
    run.schedule()
    run.reconcile()
    return run


def told(run: Any) -> tuple[int, int]:
    """Seconds at risk, and the boost."""
    annotations = run.workload["metadata"]["annotations"]
    return int(annotations["kindling.dev/seconds-at-risk"]), int(annotations["kueue.x-k8s.io/priority-boost"])
