"""Slow pods: the condition, the Events, and where the pods of later attempts rather do not go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
SLOW = {"rank": 1, "node": 1, "factor": 2.1, "step": 35}


@pytest.fixture
def run(cluster: Make) -> Any:
    """One of two pods, each on a node of its own."""
    run = cluster()
    run.run()
    return run


def says(run: Any, step: int, *stragglers: Any) -> None:
    run.says(step, stragglers=list(stragglers))
    run.reconcile()


def wishes(run: Any) -> list[Any]:
    """What the pods of the newest attempt prefer of nodes."""
    affinity = run.job["spec"]["template"]["spec"]["affinity"]
    found: list[Any] = affinity.get("nodeAffinity", {}).get(PREFERRED, [])
    return found


def ends(run: Any) -> None:
    """The attempt ends, and the next one is made."""
    run.fails()
    run.job_ends()
    run.reconcile()
    run.wait(60)
    run.reconcile()


def test_a_slow_process_is_told_of_with_its_pod_and_node_until_it_is_not_slow(run: Any) -> None:
    says(run, 20)
    assert run.said("Straggling") is None
    says(run, 35, SLOW)
    pod = run.pod(1)["metadata"]["name"]
    assert run.said("Straggling") == ("True", "SlowProcess")
    assert run.message("Straggling").startswith(
        f"The run goes at the pace of its slowest: process 1, in pod {pod} on node node-2, takes 2.1 times as long"
    )
    assert run.status["stragglers"] == [{"pod": pod, "node": "node-2", "rank": 1, "factor": 2.1, "step": 35}]
    says(run, 40, {**SLOW, "factor": 2.4})
    says(run, 45)
    assert run.said("Straggling") == ("False", "EvenPace") and "stragglers" not in run.status
    assert [event.type for event in run.events if event.reason == "Straggling"] == ["Warning"]


def test_processes_that_have_just_been_started_again_say_nothing_of_who_is_slow(run: Any) -> None:
    says(run, 35, SLOW)
    run.says(30)
    run.reconcile()
    assert run.said("Straggling") == ("True", "SlowProcess")


def test_a_pod_that_is_not_seen_yet_is_not_told_of(run: Any) -> None:
    says(run, 35, {**SLOW, "node": 7})
    assert run.said("Straggling") is None and "stragglers" not in run.status


def test_where_it_is_slow_to_the_end_of_its_attempt_the_later_ones_prefer_other_nodes(run: Any) -> None:
    assert wishes(run) == []
    says(run, 35, SLOW)
    ends(run)
    assert run.said("Straggling") == ("False", "RankFailed") and run.status["attempt"] == 2
    assert run.status["attempts"][0]["slowNodes"] == ["node-2"]
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": ["node-2"]}]
    assert wishes(run) == [{"weight": 100, "preference": {"matchFields": fields}}]
    run.schedule()
    run.reconcile()
    ends(run)
    assert run.status["attempt"] == 3 and len(wishes(run)) == 1, "still"


def test_where_it_was_slow_for_a_while_nothing_is_avoided(run: Any) -> None:
    says(run, 35, SLOW)
    says(run, 50)
    ends(run)
    assert run.status["attempt"] == 2 and wishes(run) == []


def test_what_a_document_itself_prefers_of_nodes_stays(cluster: Make) -> None:
    preference = {"weight": 1, "preference": {"matchExpressions": [{"key": "pool", "operator": "Exists"}]}}
    run = cluster(podTemplate={"affinity": {"nodeAffinity": {PREFERRED: [preference]}}})
    run.run()
    says(run, 35, SLOW)
    ends(run)
    assert [wish["weight"] for wish in wishes(run)] == [1, 100]
