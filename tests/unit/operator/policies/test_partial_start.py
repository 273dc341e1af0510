"""Runs that hold part of what they need: they give way, each after a while of its own, and try again for free."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from kindling_operator.moments import stamp

Make = Callable[..., Any]


def half(run: Any) -> None:
    """The newest attempt has a node for its first pod and none for its second."""
    run.run()
    run.resource["status"]["attempts"][-1].pop("running", None)
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu"}
    waits = run.pod(1)
    waits["spec"] = {}
    waits["status"] = {"phase": "Pending", "conditions": [{**scheduled, "lastTransitionTime": stamp(run.now)}]}


def give_way(run: Any) -> float:
    """Seconds until the attempt is over."""
    for _ in range(1000):
        attempt = run.status["attempts"][-1]
        if "ended" in attempt:
            return (
                datetime.fromisoformat(attempt["ended"]) - datetime.fromisoformat(attempt["started"])
            ).total_seconds()
        run.wait(max(1.0, run.reconcile().requeue_after or 0.0))
    raise AssertionError("it holds on")


def test_a_partial_start_frees_its_pods_after_its_time_and_is_free_of_charge(cluster: Make) -> None:
    run = cluster()
    half(run)
    job = run.job_key
    assert 300 <= give_way(run) <= 451
    assert job not in run.objects and not run.pods
    assert run.status["restarts"] == 0
    assert run.said("Restarting") == ("True", "PartialStart")
    assert "1 of 2 pods have nodes (node-1)" in run.message("Restarting")
    assert (run.events[-1].type, run.events[-1].reason) == ("Warning", "Restarting")
    run.wait(61)
    run.reconcile()
    assert run.status["attempt"] == 2 and run.job_key != job


def test_two_runs_that_hold_what_the_other_waits_for_do_not_give_way_together(cluster: Make) -> None:
    waits = []
    for uid in ("uid-a", "uid-b", "uid-c", "uid-d"):
        run = cluster()
        run.resource["metadata"]["uid"] = uid
        half(run)
        waits.append(give_way(run))
    assert len({round(seconds) for seconds in waits}) == len(waits)


def test_start_timeout_is_the_documents_to_choose(cluster: Make) -> None:
    run = cluster(restart={"startTimeout": "20s"})
    half(run)
    assert give_way(run) <= 31


@pytest.mark.parametrize("what", ["nothing is held", "all run", "a queue decides", "one pod"])
def test_what_holds_nothing_of_others_waits_on(cluster: Make, what: str) -> None:
    run = cluster(**{"queue": "ml"} if what == "a queue decides" else {})
    if what == "one pod":
        run = cluster(resources={"nodes": 1}, parallelism={})
    half(run) if what not in ("all run", "one pod") else run.run()
    if what == "nothing is held":
        run.pod(0)["spec"] = {}
        run.pod(0)["status"] = run.pod(1)["status"]
    for _ in range(20):
        run.wait(60)
        run.reconcile()
    assert run.status["attempt"] == 1 and "ended" not in run.status["attempts"][-1]
