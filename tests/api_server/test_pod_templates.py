"""A real API server that enforces Pod Security `restricted` takes a thousand pods of documents with templates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import hostile_pods
import pytest
from hostile_pods import Object
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kindling_api.errors import SpecError
from kindling_operator.cluster import Cluster

OnCluster = Callable[[Callable[[Cluster], Awaitable[Any]]], Any]
INSTALLATIONS = [one for one in hostile_pods.installations() if not one.allow.host_network]
WANTED = 1000
PATHS = {"Job": "/apis/batch/v1/namespaces/{}/jobs", "Pod": "/api/v1/namespaces/{}/pods"}


@pytest.fixture
def namespace(on_cluster: OnCluster) -> Iterator[str]:
    """One in which the standard is enforced; the cluster has the classes that installations allow."""
    classes = [
        ("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": name}, "value": 1})
        for name in ("low", "middle")
    ]
    runtime = ("/apis/node.k8s.io/v1/runtimeclasses", {"metadata": {"name": "gvisor"}, "handler": "runsc"})
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    made = [*classes, runtime, ("/api/v1/namespaces", {"metadata": {"name": "templates", "labels": labels}})]

    async def prepare(cluster: Cluster) -> None:
        for path, item in made:
            await cluster._call("POST", path, item, "application/json", {})

    on_cluster(prepare)
    yield "templates"


def accepted() -> list[list[Object]]:
    """The Jobs and pods of as many documents as are wanted, each of which an installation has accepted."""
    found: list[list[Object]] = []

    @settings(max_examples=8 * WANTED, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(document=hostile_pods.documents(), installation=st.sampled_from(INSTALLATIONS))
    def collect(document: tuple[str, Object, Object], installation: Any) -> None:
        kind, spec, wish = document
        if len(found) == WANTED:
            return
        try:
            made = list(hostile_pods.objects(kind, {**spec, "podTemplate": wish}, installation))
        except SpecError:
            return
        found.append([*(item for item in made if item["kind"] == "Job"), *map(pod, hostile_pods.pods(made))])

    collect()
    return found


def pod(template: Object) -> Object:
    """A pod of a template."""
    labels = template["metadata"]["labels"]
    return {"kind": "Pod", "metadata": {"generateName": "x-", "labels": labels}, "spec": template["spec"]}


@pytest.mark.exhaustive
def test_a_thousand_templates_that_are_accepted_give_pods_that_the_api_server_takes(
    namespace: str, on_cluster: OnCluster
) -> None:
    documents = accepted()
    assert len(documents) == WANTED

    async def try_out(cluster: Cluster) -> int:
        for item in (item for items in documents for item in items):
            body = item | {"metadata": {**item["metadata"], "namespace": namespace}}
            query = {"dryRun": "All", "fieldValidation": "Strict"}
            await cluster._call("POST", PATHS[item["kind"]].format(namespace), body, "application/json", query)
        return sum(map(len, documents))

    assert on_cluster(try_out) > 2 * WANTED
