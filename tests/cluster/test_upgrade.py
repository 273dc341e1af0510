"""An upgrade of the operator lets runs in flight alone."""

from __future__ import annotations

import pytest

from kubenode.client import Object
from kubenode.installation import Installation
from runs import Run, pretraining, storage

pytestmark = pytest.mark.serial

OPERATOR = "app.kubernetes.io/name=kindling"


def test_another_operator_takes_runs_over_as_they_are(kindling: Installation, corpus: Run) -> None:
    spec = {"storage": storage(kindling.bucket, "upgrade"), "checkpoint": {"every": 100}}
    kindling.cluster.apply(pretraining("in-flight", corpus.name, **spec), namespace=kindling.runs)
    run = Run(kindling.cluster, "PretrainRun", "in-flight", kindling.runs)
    run.wait("trains", lambda status: status.get("progress", {}).get("step", 0) > 0, 120)
    before, operator = identities(run), operators(kindling)[0]

    digest = operator["status"]["containerStatuses"][0]["imageID"].rpartition("@")[2]
    images = {**kindling.values()["images"], "operator": {"digest": digest}}
    changed = {**kindling.values()["operator"], "podAnnotations": {"changed": "yes"}}
    kindling.upgrade(images=images, operator=changed, runs={"lostNodeSeconds": 30})
    new = operators(kindling)[0]
    assert new["metadata"]["uid"] != operator["metadata"]["uid"]
    assert (
        new["spec"]["containers"][0]["image"].endswith(digest) and "@" not in operator["spec"]["containers"][0]["image"]
    )

    step = run.status()["progress"]["step"]
    run.wait("tells the new operator how far it is", lambda status: status["progress"]["step"] > step, 60)
    assert identities(run) == before
    status = run.finish()
    assert (len(status["attempts"]), status["restarts"]) == (1, 0)
    assert identities(run) == before
    kindling.upgrade()
    run.delete()


def identities(run: Run) -> set[tuple[str, int]]:
    """Of its pods, with how often their containers were started."""
    return {(pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in run.pods()}


def operators(kindling: Installation) -> list[Object]:
    """The operator's pods that are not on their way out."""
    pods = kindling.cluster.find("pods", kindling.namespace, OPERATOR)
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
