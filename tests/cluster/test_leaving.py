"""A namespace goes within five minutes, with documents whose data is to go too, whatever in it goes first."""

from __future__ import annotations

import time
from itertools import cycle, islice, permutations

import pytest

from kubenode.client import RESTRICTED, Cluster, Object, wait_until
from kubenode.installation import Installation
from runs import Run, dataset, pretraining

pytestmark = pytest.mark.serial

PROMISED_SECONDS = 300
NAMESPACES = 20
LOST = ("role", "rolebinding", "secret", "pretrainrun")
"""What may go first, by kind."""


def make(cluster: Cluster, *names: str) -> None:
    for name in names:
        metadata = {"name": name, "labels": RESTRICTED}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def has_finalizer(run: Run) -> bool:
    return "kindling.dev/retention" in (run.get()["metadata"].get("finalizers") or ())


def test_a_namespace_that_loses_the_operators_rights_first_goes_and_is_watched_when_it_is_back(
    kindling: Installation,
) -> None:
    cluster = kindling.cluster
    make(cluster, "leaving")
    watch = {"namespaces": [kindling.runs, "leaving"]}
    kindling.upgrade(watch=watch)
    run = Run(cluster, "DatasetBuild", "leaving", "leaving")
    cluster.apply(dataset("leaving", retention="Delete"), namespace="leaving")
    wait_until("it is held", lambda: has_finalizer(run), 60, run.describe)
    cluster.kubectl("delete", "namespace", "leaving", "--wait=false")
    for kind in ("role", "rolebinding"):
        cluster.kubectl("delete", kind, "--all", "-n", "leaving", check=False)
    cluster.kubectl("delete", "namespace", "leaving", f"--timeout={PROMISED_SECONDS}s", "--ignore-not-found")
    said = cluster.kubectl("logs", "deployment/kindling", "-n", kindling.namespace)
    assert said.count("the namespace leaving is being deleted") <= 1
    assert said.count('"level": "error"') == 0, said[-4000:]

    make(cluster, "leaving")
    kindling.upgrade(watch=watch)
    cluster.apply(dataset("leaving"), namespace="leaving")
    run.wait("it is looked after again", lambda status: status.get("attempt"), 60)
    kindling.upgrade()
    cluster.kubectl("delete", "namespace", "leaving", f"--timeout={PROMISED_SECONDS}s")


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["namespaced", "cluster-wide"])
def test_twenty_namespaces_go_whatever_in_them_goes_first(kindling: Installation, mode: str) -> None:
    cluster, names = kindling.cluster, [f"leaving-{number}" for number in range(NAMESPACES)]
    make(cluster, *names)
    if mode == "namespaced":
        kindling.upgrade(watch={"namespaces": [kindling.runs, *names]})
    else:
        everywhere = {**kindling.values()["storage"], "namespaces": [kindling.runs, *names]}
        kindling.upgrade(watch={"cluster": True}, storage=everywhere)
    try:
        for name in names:
            cluster.apply(too_large(), namespace=name)
        for name in names:
            run = Run(cluster, "PretrainRun", "held", name)
            wait_until("it is held", lambda run=run: has_finalizer(run), 120, run.describe)
        began = time.monotonic()
        for number, (name, order) in enumerate(zip(names, islice(cycle(permutations(LOST)), NAMESPACES), strict=True)):
            steps = [("delete", kind, "--all", "-n", name, "--wait=false") for kind in order]
            steps.insert(number % (len(steps) + 1), ("delete", "namespace", name, "--wait=false"))
            for step in steps:
                cluster.kubectl(*step, check=False)
        for name in names:
            left = began + PROMISED_SECONDS - time.monotonic()
            cluster.kubectl("wait", "--for=delete", f"namespace/{name}", f"--timeout={max(1, int(left))}s")
    finally:
        kindling.upgrade()


def too_large() -> Object:
    """A run with data to delete, whose pods no node takes."""
    resources = {"nodes": 1, "cpu": "400", "memory": "2Gi"}
    where = {"uri": f"s3://nowhere/datasets/{0:016x}"}
    return pretraining("held", where, parallelism={}, resources=resources, retention="Delete")
