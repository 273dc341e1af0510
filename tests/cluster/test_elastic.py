"""An elastic run loses a node, goes on without it, takes it in again, and has the curve of a run that did not."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from kubenode.client import Object
from kubenode.installation import Installation
from kubenode.store import Store
from runs import FAST, Run, losses, pretraining, storage

pytestmark = [pytest.mark.serial, pytest.mark.exhaustive, pytest.mark.timeout(1800)]

INDEX = "batch.kubernetes.io/job-completion-index"
NODE, LOST = "node-1", "node-2"
NODES_OF_THEIR_OWN: Object = {
    "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]
}
FIRST_HERE: Object = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]}
AFFINITY: Object = {
    "podAntiAffinity": NODES_OF_THEIR_OWN,
    "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": FIRST_HERE}]},
}
"""A node holds one pod of the run, so that the loss of one leaves less room; the first pod is where MinIO is, too."""
TRAINING: Object = {"steps": 700, **FAST, "batch": {"tokens": "4Ki", "microBatch": 2}}
SECONDS = 300


def test_a_run_goes_on_without_a_lost_node_and_grows_when_that_is_back(
    kindling: Installation, minio: Store, corpus: Run, power: Any
) -> None:
    common: Object = {"training": TRAINING, "parallelism": {"data": "auto"}, "checkpoint": {"every": 100}}
    resources = {"nodes": 2, "minNodes": 1, "cpu": "500m", "memory": "2Gi"}
    spec = {
        **common,
        "storage": storage(kindling.bucket, "elastic"),
        "resources": resources,
        "podTemplate": {"affinity": AFFINITY},
    }
    kindling.cluster.apply(pretraining("elastic", corpus.name, **spec), namespace=kindling.runs)
    run = Run(kindling.cluster, "PretrainRun", "elastic", kindling.runs)
    run.wait("a checkpoint is committed", lambda status: status.get("checkpoint"), SECONDS)
    assert run.status()["nodes"] == {"running": 2, "wanted": 2, "sizes": [1, 2]}
    places = {pod["metadata"]["labels"][INDEX]: pod["spec"]["nodeName"] for pod in run.pods()}
    assert places == {"0": NODE, "1": LOST}

    start = time.monotonic()
    power.kill_node(LOST)
    status = run.wait("goes on over one node", lambda status: over(status, 1), SECONDS)
    step = status["progress"]["step"]
    run.wait("takes steps", lambda status: status["progress"]["step"] > step + 5, SECONDS)
    print(f"without {LOST}: told and at work after {time.monotonic() - start:.0f} s; {status['resizes'][-1]}")
    start = time.monotonic()
    power.start_node(LOST)
    status = run.wait("goes on over two nodes", lambda status: over(status, 2), SECONDS)
    print(f"with {LOST}: over both after {time.monotonic() - start:.0f} s")
    end = run.finish(seconds=900)
    print(f"resizes: {json.dumps(end['resizes'])}")
    assert (len(end["attempts"]), end["restarts"]) == (1, 0)
    assert [(one["before"], one["nodes"]) for one in end["resizes"]] == [(2, 1), (1, 2)]
    assert [one["cause"] for one in end["resizes"]] == ["node 1 is gone", "node 1 has come"]
    assert end["resizes"][1].get("lostSteps", 0) == 0, "before it grows it saves"

    spec = {**common, "storage": storage(kindling.bucket, "one"), "resources": {"cpu": "1", "memory": "2Gi"}}
    kindling.cluster.apply(pretraining("one-node", corpus.name, **spec), namespace=kindling.runs)
    undisturbed = Run(kindling.cluster, "PretrainRun", "one-node", kindling.runs).finish(seconds=900)
    expected, found = losses(minio, undisturbed), losses(minio, end)
    assert found.keys() == expected.keys() and len(found) == TRAINING["steps"]
    assert max(abs(found[step] - expected[step]) for step in expected) < 1e-5


def over(status: Object, nodes: int) -> Object | None:
    """The status, once the run goes over so many nodes."""
    return status if status.get("nodes", {}).get("running") == nodes else None
