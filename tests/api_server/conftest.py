"""A real API server, alone: for what talks to it and needs no nodes."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_kube_config

from kindling_api.documents import KINDS
from kindling_operator.cluster import Cluster

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT / "tests" / "cluster"))

from kubenode.api_server import ApiServer  # noqa: E402

Result = TypeVar("Result")
OnCluster = Callable[[Callable[[Cluster], Awaitable[Result]]], Result]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The server takes seconds to start."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """With Kindling's kinds, and an operator that may do anything."""
    if problem := ApiServer.missing():
        pytest.skip(problem)
    with ApiServer(tmp_path_factory.mktemp("api-server")) as running:
        asyncio.run(_with(running, _prepare))
        yield running


@pytest.fixture
def on_cluster(server: ApiServer) -> Callable[[Callable[[Cluster], Awaitable[Any]]], Any]:
    """Runs a coroutine function with a connection of its own."""
    return lambda what: asyncio.run(_with(server, what))


@pytest.fixture
def namespace(on_cluster: OnCluster[None]) -> str:
    """A fresh one."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    on_cluster(lambda cluster: post(cluster, "/api/v1/namespaces", {"metadata": {"name": name}}))
    return name


async def post(cluster: Cluster, path: str, item: dict[str, Any]) -> None:
    """Create an object of a kind that the operator has nothing to do with."""
    await cluster._call("POST", path, item, "application/json", {})


async def _with(server: ApiServer, what: Callable[[Cluster], Awaitable[Result]]) -> Result:
    configuration = Configuration()
    await load_kube_config(config_file=str(server.kubeconfig()), client_configuration=configuration)
    cluster = Cluster(ApiClient(configuration))
    try:
        return await what(cluster)
    finally:
        await cluster.close()


async def _prepare(cluster: Cluster) -> None:
    for path in sorted((PROJECT / "crds").glob("*.yaml")):
        await post(cluster, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", yaml.safe_load(path.read_text()))
    await post(cluster, "/api/v1/namespaces", {"metadata": {"name": "kindling"}})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"metadata": {"name": "operator"}, "roleRef": role, "subjects": [{"kind": "User", "name": "operator"}]}
    await post(cluster, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    for kind in KINDS:
        while not await cluster.installed("kindling.dev/v1alpha1", kind):
            await asyncio.sleep(0.1)
