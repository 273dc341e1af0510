"""A real API server takes everything in tests/golden as it is, with Pod Security `restricted` enforced."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kindling_operator.cluster import Cluster, ClusterError

Object = dict[str, Any]
OnCluster = Callable[[Callable[[Cluster], Awaitable[Any]]], Any]

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.yaml"))
PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Service": "/api/v1/namespaces/{}/services",
}
DRY_RUN = {"dryRun": "All", "fieldValidation": "Strict"}


@pytest.fixture
def restricted(on_cluster: OnCluster) -> str:
    """A namespace in which the standard is enforced."""
    name = f"restricted-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"metadata": {"name": name, "labels": labels}}
    on_cluster(lambda cluster: cluster._call("POST", "/api/v1/namespaces", body, "application/json", {}))
    return name


def pods(value: Any) -> Iterator[Object]:
    """A pod from each template in an object."""
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            labels = value["metadata"]["labels"]
            yield {"kind": "Pod", "metadata": {"generateName": "x-", "labels": labels}, "spec": value["spec"]}
        for inner in value.values():
            yield from pods(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pods(inner)


async def try_out(cluster: Cluster, namespace: str, item: Object) -> Object:
    """Create an object as a dry run: everything is checked, nothing is kept."""
    body = item | {"metadata": item["metadata"] | {"namespace": namespace}}
    return await cluster._call("POST", PATHS[item["kind"]].format(namespace), body, "application/json", DRY_RUN)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_api_server_takes_what_is_rendered(path: Path, restricted: str, on_cluster: OnCluster) -> None:
    objects = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    wanted = [item for item in objects if item["kind"] in PATHS] + [pod for item in objects for pod in pods(item)]

    async def all_of_it(cluster: Cluster) -> int:
        return len([await try_out(cluster, restricted, item) for item in wanted])

    assert on_cluster(all_of_it) >= 2


@pytest.mark.parametrize(
    "change",
    [
        {"hostNetwork": True},
        {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
        {"securityContext": {"runAsNonRoot": False}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_standard_is_enforced_where_that_was_tried(change: Object, restricted: str, on_cluster: OnCluster) -> None:
    container = {"name": "c", "image": "i", "securityContext": {"allowPrivilegeEscalation": True}}
    pod = {"kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container], **change}}
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        on_cluster(lambda cluster: try_out(cluster, restricted, pod))


def test_a_field_that_does_not_exist_would_be_noticed(restricted: str, on_cluster: OnCluster) -> None:
    service = {"kind": "Service", "metadata": {"name": "x"}, "spec": {"clusterIP": "None", "publishNotReady": True}}
    with pytest.raises(ClusterError, match="unknown field"):
        on_cluster(lambda cluster: try_out(cluster, restricted, service))
