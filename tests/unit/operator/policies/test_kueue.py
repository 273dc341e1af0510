"""A queue holds a run back, and what is said of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kindling_operator.moments import stamp

Make = Callable[..., Any]


def test_kueue_admits_a_job_and_may_take_it_back_and_nobody_else_touches_it(cluster: Make) -> None:
    run = cluster(queue="team-a", activeDeadline="1h")
    run.reconcile()
    assert (run.status["phase"], run.said("Queued")) == ("Queued", ("True", "WaitingForAdmission"))
    run.wait(7200)
    assert run.reconcile().change == ()
    run.admit()
    run.schedule()
    run.reconcile()
    assert (run.status["phase"], run.said("Queued"), run.status["startTime"]) == (
        "Running", ("False", "Admitted"), stamp(run.now),
    )  # fmt: skip
    run.admit(yes=False)
    for index in (0, 1):
        run.loses(index, "EvictionByEvictionAPI")
    run.reconcile()
    assert (run.status["phase"], run.status["attempt"], "startTime" in run.status) == ("Queued", 1, False)


def test_another_queue_takes_effect_while_the_first_one_has_not_admitted_the_run(cluster: Make) -> None:
    run = cluster(queue="team-a")
    run.reconcile()
    run.edit(queue="team-b")
    run.reconcile()
    assert (run.made, run.status["restarts"]) == (["tiny-ptr-uid-0-1", "tiny-ptr-uid-0-2"], 0)
    assert run.job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-b"


def test_what_kueue_says_of_a_run_that_waits_is_passed_on(cluster: Make) -> None:
    run = cluster(queue="team-a")
    run.reconcile()
    run.queues("insufficient unused quota for cpu in flavor any, 2 more needed")
    assert run.reconcile().requeue_after == 15
    assert message(run, "Queued") == (
        "Waits in the queue team-a until Kueue admits it: insufficient unused quota for cpu in flavor any, 2 more "
        "needed (kubectl describe workload job-tiny-ptr-uid-0-1)."
    )


def test_a_class_of_priorities_that_is_not_there_is_told_and_the_run_queues_once_it_is(cluster: Make) -> None:
    run = cluster(queue="team-a", priority="urgent")
    run.reconcile()
    run.job["metadata"]["creationTimestamp"] = stamp(run.now)
    run.wait(9)
    run.reconcile()
    assert (run.said("Queued"), run.said("Running")) == (WAITS, ("False", "WaitingForAdmission"))
    run.wait(1)
    run.reconcile()
    assert (run.status["phase"], run.said("Running")) == ("Queued", ("False", "PriorityMissing"))
    assert "spec.priority is urgent" in message(run, "Running") and "Create it" in message(run, "Running")
    run.queues()
    run.reconcile()
    assert (run.said("Queued"), run.said("Running")) == (WAITS, ("False", "WaitingForAdmission"))


def test_a_job_that_kueue_leaves_alone_says_so(cluster: Make) -> None:
    run = cluster(queue="team-a")
    run.reconcile()
    run.job["metadata"]["creationTimestamp"] = stamp(run.now)
    run.wait(10)
    run.reconcile()
    assert message(run, "Queued").startswith("Kueue has not taken up the Job tiny-ptr-uid-0-1 for the queue team-a")


WAITS = ("True", "WaitingForAdmission")


def message(run: Any, type_: str) -> str:
    """Of a condition."""
    return str(next(one["message"] for one in run.status["conditions"] if one["type"] == type_))
