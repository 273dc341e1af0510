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
    run.job["spec"]["suspend"] = False
    run.schedule()
    run.reconcile()
    assert (run.status["phase"], run.said("Queued"), run.status["startTime"]) == (
        "Running", ("False", "Admitted"), stamp(run.now),
    )  # fmt: skip
    run.job["spec"]["suspend"] = True
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
