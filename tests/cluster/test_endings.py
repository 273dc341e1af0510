"""What is deleted is gone with all that belonged to it, what is committed stays, and everybody else's runs go on."""

from __future__ import annotations

import time

import pytest

from kubenode.client import RESTRICTED, Object, wait_until
from kubenode.installation import Installation
from kubenode.store import Store
from runs import ONE_POD, Run, dataset, pretraining, storage

CHILDREN = ("jobs", "pods", "configmaps", "services", "networkpolicies")
IN_TIME = 30
"""Seconds."""


def test_a_run_that_is_deleted_half_way_goes_on_when_it_is_applied_again(
    kindling: Installation, minio: Store, corpus: Run
) -> None:
    cluster, namespace = kindling.cluster, kindling.runs
    document = pretraining("deleted", corpus.name, storage=storage(kindling.bucket, "deleted"), **ONE_POD)
    run = Run(cluster, "PretrainRun", "deleted", namespace)
    cluster.apply(document, namespace=namespace)
    saved = run.wait("a checkpoint is committed", lambda status: status.get("checkpoint", {}).get("step"), 120)
    run.delete()
    wait_until("its children are gone", lambda: not children(run), IN_TIME)
    kept = set(minio.names(kindling.bucket, "deleted"))
    assert any("/checkpoints/" in name for name in kept)

    cluster.apply(document, namespace=namespace)
    end = run.finish()
    assert (end["attempt"], end["restarts"], end["result"]["steps"]) == (1, 0, 300)
    log = cluster.logs(run.pods()[0]["metadata"]["name"], namespace)
    assert "continues from checkpoint" in log, f"at least from step {saved}:\n{log}"
    run.delete()


def test_two_documents_of_one_content_share_the_product(kindling: Installation, corpus: Run) -> None:
    cluster, namespace = kindling.cluster, kindling.runs
    where = storage(kindling.bucket, "twins")
    first, second = (Run(cluster, "PretrainRun", name, namespace) for name in ("twin-1", "twin-2"))
    training = {"steps": 700, "batch": {"tokens": "1Ki"}, "compile": "never", "precision": "fp32"}
    for twin in (first, second):
        document = pretraining(twin.name, corpus.name, storage=where, training=training, **ONE_POD)
        cluster.apply(document, namespace=namespace)
    ends = [twin.finish() for twin in (first, second)]
    assert ends[0]["result"] == ends[1]["result"]
    assert {reason for end in ends for reason in reasons(end)} == {"HeldElsewhere", "Completed"}
    assert [end["restarts"] for end in ends] == [0, 0], "neither is at fault"
    for twin in (first, second):
        twin.delete()


@pytest.mark.serial
def test_a_namespace_that_is_deleted_disturbs_no_other(kindling: Installation, corpus: Run) -> None:
    cluster = kindling.cluster
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "doomed", "labels": RESTRICTED}})
    kindling.upgrade(watch={"namespaces": [kindling.runs, "doomed"]})
    cluster.apply(dataset("doomed"), namespace="doomed")
    doomed = Run(cluster, "DatasetBuild", "doomed", "doomed")
    doomed.wait("runs", lambda _: doomed.condition("Running").get("status") == "True", 60)
    before = operators(kindling)
    cluster.kubectl("delete", "namespace", "doomed", "--timeout=60s")
    time.sleep(IN_TIME)  # as long as a watch that fails may take to be noticed
    cluster.apply(dataset("survivor"), namespace=kindling.runs)
    survivor = Run(cluster, "DatasetBuild", "survivor", kindling.runs)
    survivor.finish(60)
    survivor.delete()
    assert operators(kindling) == before, "the operator was not restarted"
    kindling.upgrade()


def children(run: Run) -> list[str]:
    """What there is of a run."""
    label = f"kindling.dev/kind={run.kind},kindling.dev/name={run.name}"
    return [each["metadata"]["name"] for kind in CHILDREN for each in run.cluster.find(kind, run.namespace, label)]


def reasons(status: Object) -> list[str]:
    """How its attempts ended."""
    return [attempt["reason"] for attempt in status["attempts"]]


def operators(kindling: Installation) -> list[tuple[str, int]]:
    """The operator's pods, and how often each was started again."""
    pods = kindling.cluster.find("pods", kindling.namespace, "app.kubernetes.io/name=kindling")
    return [(pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in pods]
