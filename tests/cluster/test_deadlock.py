"""Two runs that each hold a node which the other one needs: one gives way, and both are done in the end."""

from __future__ import annotations

import pytest

from kubenode.client import Object
from kubenode.installation import Installation
from runs import FAST, Run, pretraining, seconds_between

PODS: Object = {"nodes": 2, "cpu": "1100m", "memory": "2Gi"}
"""One pod of either run fills a node of two cores."""
START: Object = {"startTimeout": "20s"}
FIRST_IN_LINE = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "first-in-line"},
    "value": 1000,
    "preemptionPolicy": "Never",
}


@pytest.mark.serial
@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_two_runs_that_each_hold_part_of_what_both_need_are_both_done(kindling: Installation, corpus: Run) -> None:
    cluster, namespace = kindling.cluster, kindling.runs
    held, holder = (Run(cluster, "PretrainRun", name, namespace) for name in ("held", "holder"))
    training = {"steps": 20, **FAST}
    cluster.apply(FIRST_IN_LINE)
    try:
        cluster.kubectl("cordon", "node-2")
        document = pretraining("held", corpus.name, training=training, resources=PODS, restart=START)
        cluster.apply(document, namespace=namespace)
        held.wait("has a node", lambda _: nodes(held) == {"node-1"}, 60)
        seed, priority = {**training, "seed": 2}, "first-in-line"
        document = pretraining("holder", corpus.name, training=seed, resources=PODS, restart=START, priority=priority)
        cluster.apply(document, namespace=namespace)
        holder.wait("has pods", lambda _: len(holder.pods()) == 2, 60)
        cluster.kubectl("uncordon", "node-2")
        holder.wait("has the other node", lambda _: nodes(holder) == {"node-2"}, 60)
        assert nodes(held) == {"node-1"}, "each holds part, and nobody else can end that"

        ends = [held.finish(), holder.finish()]
        gave_way = [end["attempts"][0] for end in ends if end["attempts"][0].get("reason") == "PartialStart"]
        assert gave_way, [end["attempts"] for end in ends]
        for name, end in zip(("held", "holder"), ends, strict=True):
            for attempt in end["attempts"]:
                lasted = seconds_between(attempt["started"], attempt["ended"])
                print(f"{name}: {attempt['started']}, {lasted:.0f} s, {attempt['reason']}: {attempt['message']}")
        assert [end["restarts"] for end in ends] == [0, 0], "neither is at fault"
    finally:
        cluster.kubectl("uncordon", "node-2")
        cluster.delete("priorityclass", "first-in-line")
        held.delete()
        holder.delete()


def nodes(run: Run) -> set[str]:
    """Where its pods are."""
    return {pod["spec"]["nodeName"] for pod in run.pods() if "nodeName" in pod["spec"]}
