"""Elastic runs: which pods they can do without, and what is told of their size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kindling_operator.moments import stamp

Make = Callable[..., Any]
ELASTIC = {"resources": {"nodes": 4, "minNodes": 2}, "training": {"steps": 100, "batch": {"tokens": 32768}}}
RESIZE = {"time": "2026-05-01T12:00:10.000+00:00", "before": 4, "nodes": 2, "cause": "nodes 2, 3 are gone"}


@pytest.fixture
def elastic(cluster: Make) -> Any:
    """A run over two to four nodes, of which all are there."""
    run = cluster(**ELASTIC, parallelism={"data": "auto"})
    run.run()
    run.says(5, nodes=4)
    run.reconcile()
    return run


def test_it_begins_with_the_fewest_nodes_and_does_not_give_way(cluster: Make) -> None:
    run = cluster(**ELASTIC, parallelism={"data": "auto"})
    run.reconcile()
    run.schedule()
    for index in (2, 3):
        waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu"}
        run.pod(index)["status"] = {
            "phase": "Pending", "conditions": [{**waits, "lastTransitionTime": stamp(run.now)}],
        }  # fmt: skip
    run.wait(3600)
    run.reconcile()
    assert run.said("Running") == ("True", "Started") and run.status["attempts"][0]["running"]


@pytest.mark.parametrize("lose", [
    lambda run: run.loses(3),
    lambda run: run.fails(3),
    lambda run: run.fails(3, reason="UserError", code=2),
    lambda run: run.pods.remove(run.pod(3)),
], ids=["its node is lost", "its launcher fails", "its launcher refuses its input", "it was deleted"])  # fmt: skip
def test_what_becomes_of_other_pods_than_the_first_ends_no_attempt(elastic: Any, lose: Callable[[Any], None]) -> None:
    lose(elastic)
    elastic.reconcile()
    assert elastic.said("Running") == ("True", "Started") and elastic.status["attempt"] == 1


@pytest.mark.parametrize(("lose", "reason", "restarts"), [
    (lambda run: run.loses(0), "NodeLost", 0),
    (lambda run: run.fails(0, signal="SIGKILL"), "RankFailed", 1),
], ids=["its node is lost", "its launcher fails"])  # fmt: skip
def test_the_end_of_the_first_pod_is_that_of_the_attempt(
    elastic: Any, lose: Callable[[Any], None], reason: str, restarts: int
) -> None:
    lose(elastic)
    elastic.reconcile()
    attempt = elastic.status["attempts"][0]
    assert (attempt["reason"], elastic.status["restarts"]) == (reason, restarts)
    assert elastic.status["nodes"] == {"running": 0, "wanted": 4, "sizes": [2, 4]}


def test_a_change_of_size_is_told_once_with_its_cause_and_its_cost(elastic: Any) -> None:
    elastic.says(9, nodes=2, resizes=[{**RESIZE, "lostSteps": 3}])
    elastic.reconcile()
    assert elastic.status["nodes"] == {"running": 2, "wanted": 4, "sizes": [2, 4]}
    assert elastic.message("Running") == "Attempt 1 runs over 2 of 4 nodes."
    elastic.says(12, nodes=2, resizes=[{**RESIZE, "lostSteps": 3, "seconds": 7.5}])
    elastic.reconcile()
    (resize,) = elastic.status["resizes"]
    assert (resize["seconds"], resize["lostSteps"]) == (7.5, 3)
    (event,) = [event for event in elastic.events if event.reason == "Resized"]
    assert event.message == "Nodes 2, 3 are gone: the run goes on over 2 nodes instead of 4, 3 steps taken again."


def test_it_has_succeeded_with_its_first_pod_whatever_the_others_wait_for(elastic: Any) -> None:
    word = {"state": "Succeeded", "message": "100 steps", "result": {"digest": "sha256:1", "uri": "s3://llm/models/1",
            "model": "s3://llm/models/1/model", "steps": 100}, "nodes": 4}  # fmt: skip
    elastic.ends(0, 0, word, reason="Completed")
    elastic.reconcile()
    assert elastic.said("Succeeded") == ("True", "Completed") and elastic.status["nodes"]["running"] == 0


def test_while_it_waits_for_nodes_it_neither_hangs_nor_ends(elastic: Any) -> None:
    elastic.says(0, stage="starting", nodes=0, trouble="WaitingForNodes", message="waiting for nodes")
    elastic.wait(3600)
    elastic.reconcile()
    assert elastic.said("Running") == ("True", "WaitingForNodes") and elastic.status["attempt"] == 1
