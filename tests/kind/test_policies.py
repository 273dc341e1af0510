"""Who reaches whom, where NetworkPolicies are enforced; and what the chart's MinIO keeps on its volume.

The cluster is that of the quickstart, whose runs have ended and whose model is served.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from kubenode.client import Cluster, Object, wait_until
from kubenode.processes import run

OURS, OTHER = "kindling", "other"
IMAGE = "kindling-operator:dev"
"""On the node, and with a Python in it."""

TRY = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=4)
    print("open")
except OSError:
    print("closed")
"""
LISTENING = """
import glob
lines = [line.split() for path in glob.glob("/proc/net/tcp*") for line in list(open(path))[1:]]
loopback = ("0100007F", f"{1 << 24:032X}")
heard = [line[1].split(":") for line in lines if line[3] == "0A"]
print(*sorted({int(port, 16) for address, port in heard if address not in loopback}))
"""
"""The ports at which a pod listens to others (proc(5): state 0A, addresses in words of the machine's order)."""


@dataclass(frozen=True)
class Place:
    """A pod from which another is reached."""

    cluster: Cluster
    namespace: str
    name: str

    def python(self, program: str, *words: Any) -> str:
        """What a program in it prints."""
        command = ("exec", "-n", self.namespace, self.name, "--", "python", "-c", program, *map(str, words))
        return self.cluster.kubectl(*command).strip()

    def reaches(self, address: str, port: int) -> bool:
        """Whether a connection is made."""
        return self.python(TRY, address, port) == "open"

    def address(self) -> str:
        """Its own."""
        pod = self.cluster.get("pod", self.name, self.namespace)
        assert pod is not None
        address: str = pod["status"]["podIP"]
        return address


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[Callable[..., Place]]:
    """Makes a pod that does nothing by itself."""
    made = []

    def make(namespace: str, name: str, **labels: str) -> Place:
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        container = {"name": "pod", "image": IMAGE, "command": ["sleep", "3600"]}
        spec = {"containers": [container], "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False}
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        made.append((namespace, name))
        cluster.wait_for_condition("pod", name, "Ready", namespace, 60)
        return Place(cluster, namespace, name)

    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OTHER}})
    yield make
    for namespace, name in made:
        cluster.delete("pod", name, namespace, "--wait=false")
    cluster.delete("namespace", OTHER, "default", "--wait=false")


@pytest.fixture(scope="module")
def foreign(place: Callable[..., Place]) -> Place:
    """A pod of another namespace."""
    return place(OTHER, "foreign")


@pytest.fixture(scope="module")
def neighbour(place: Callable[..., Place]) -> Place:
    """A pod of the same namespace that belongs to nobody."""
    return place(OURS, "neighbour")


def found(cluster: Cluster, labels: str) -> Place:
    """The one pod with these labels that runs."""
    pods = [pod for pod in cluster.find("pods", OURS, labels) if pod["status"]["phase"] == "Running"]
    assert len(pods) == 1, [pod["metadata"]["name"] for pod in pods]
    return Place(cluster, OURS, pods[0]["metadata"]["name"])


def operator(cluster: Cluster) -> Place:
    """The operator's pod."""
    return found(cluster, "app.kubernetes.io/component=operator")


def test_the_operator_is_asked_by_nobody(cluster: Cluster, foreign: Place, neighbour: Place) -> None:
    itself = operator(cluster)
    assert itself.reaches(itself.address(), 8080), "it listens"
    assert not foreign.reaches(itself.address(), 8080)
    assert not neighbour.reaches(itself.address(), 8080)


def test_the_store_is_open_to_pods_of_documents_alone(
    cluster: Cluster, foreign: Place, neighbour: Place, place: Callable[..., Place]
) -> None:
    store, service = found_store(cluster), f"kindling-minio.{OURS}.svc.cluster.local"
    of_a_document = place(OTHER, "of-a-document", **{"kindling.dev/name": "any"})
    for address in (store, service):
        assert of_a_document.reaches(address, 9000)
        assert not foreign.reaches(address, 9000)
        assert not neighbour.reaches(address, 9000)
        assert not operator(cluster).reaches(address, 9000), "it reaches name servers, API servers and runs"


def test_a_served_model_without_a_key_is_open_to_its_namespace(
    cluster: Cluster, foreign: Place, neighbour: Place
) -> None:
    server = found(cluster, "kindling.dev/name=quickstart-chat,kindling.dev/component=serve").address()
    service = f"quickstart-chat-serve.{OURS}.svc.cluster.local"
    assert neighbour.reaches(server, 8000) and neighbour.reaches(service, 80)
    assert not foreign.reaches(server, 8000) and not foreign.reaches(service, 80)


@pytest.mark.timeout(600)
def test_a_run_is_open_to_its_own_pods_and_its_progress_to_the_operator(
    cluster: Cluster, foreign: Place, neighbour: Place
) -> None:
    # What is served goes meanwhile: two cores have no room for both.
    serving(cluster, None)
    cluster.apply(training(), namespace=OURS)
    try:
        first, second = wait_until("it trains over two pods", lambda: both_training(cluster), 240)
        ports = [int(port) for port in first.python(LISTENING).split()]
        assert 8090 in ports and len(ports) >= 2, "progress, and where its processes meet"
        address = first.address()
        assert operator(cluster).reaches(address, 8090)
        for port in ports:
            assert second.reaches(address, port), port
            assert not foreign.reaches(address, port), port
            assert not neighbour.reaches(address, port), port
        assert not operator(cluster).reaches(address, next(port for port in ports if port != 8090))
    finally:
        cluster.delete("pretrainrun", "policies", OURS, "--timeout=60s")


@pytest.mark.timeout(300)
def test_what_the_store_holds_outlives_its_pod(cluster: Cluster, place: Callable[..., Place]) -> None:
    (claim,) = cluster.find("persistentvolumeclaims", OURS)
    assert claim["status"]["phase"] == "Bound" and claim["spec"]["storageClassName"] == "standard"
    before = kept(cluster)
    assert any("model.safetensors" in path for path in before)
    pod = cluster.get("pod", "kindling-minio-0", OURS)
    cluster.delete("pod", "kindling-minio-0", OURS)
    wait_until("another pod", lambda: another(cluster, pod), 60)
    cluster.wait_for_condition("pod", "kindling-minio-0", "Ready", OURS, 120)
    assert kept(cluster) == before


def found_store(cluster: Cluster) -> str:
    """The address of MinIO's pod."""
    return Place(cluster, OURS, "kindling-minio-0").address()


def serving(cluster: Cluster, spec: Object | None) -> None:
    """Serve the quickstart's model as `spec` says; None: not any more."""
    patch = ("--type=merge", "-p", json.dumps({"spec": {"serve": spec}}))
    cluster.kubectl("patch", "alignmentrun", "quickstart-chat", "-n", OURS, *patch)


def training() -> Object:
    """A run over two pods that lasts until it is deleted."""
    spec = {
        "dataset": {"name": "quickstart"},
        "model": {"architecture": "llama", "layers": 2, "heads": 2, "kvHeads": 2, "width": 32, "context": 64},
        "training": {"steps": 1_000_000, "batch": {"tokens": "1Ki"}, "compile": "never", "precision": "fp32"},
        "parallelism": {"tensor": 2},
        "resources": {"nodes": 2, "cpu": "250m", "memory": "1Gi"},
    }
    return {
        "apiVersion": "kindling.dev/v1alpha1",
        "kind": "PretrainRun",
        "metadata": {"name": "policies"},
        "spec": spec,
    }


def both_training(cluster: Cluster) -> tuple[Place, Place] | None:
    """The run's pods, once a step is taken."""
    run = cluster.get("pretrainrun", "policies", OURS) or {}
    if not run.get("status", {}).get("progress", {}).get("step"):
        return None
    pods = cluster.find("pods", OURS, "kindling.dev/name=policies")
    first, second = sorted(pod["metadata"]["name"] for pod in pods)
    return Place(cluster, OURS, first), Place(cluster, OURS, second)


def another(cluster: Cluster, before: Object | None) -> bool:
    """Whether MinIO's pod is not the one that it was."""
    now = cluster.get("pod", "kindling-minio-0", OURS)
    return bool(now and before and now["metadata"]["uid"] != before["metadata"]["uid"])


def kept(cluster: Cluster) -> list[str]:
    """The files of MinIO's volume, as they lie on the node."""
    (claim,) = cluster.find("persistentvolumeclaims", OURS)
    volume = cluster.get("persistentvolume", claim["spec"]["volumeName"])
    assert volume is not None
    where = volume["spec"].get("hostPath") or volume["spec"]["local"]
    listed = run("docker", "exec", "kindling-control-plane", "find", where["path"], "-not", "-path", "*/.minio.sys*")
    return sorted(listed.stdout.splitlines())
