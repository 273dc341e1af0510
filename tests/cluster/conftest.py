"""What tests on a real cluster share: the cluster, its object store, its nodes, and Kindling installed on it.

The cluster is the one of `E2E_KUBECONFIG`, which `make e2e` takes from `KUBECONFIG`, or that of `make cluster`, or one
that is started and stopped. `KUBECONFIG` itself is not looked at: who runs all tests does not mean their own cluster.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from kubenode import control_plane, lifecycle, tools
from kubenode.certificates import kubeconfig
from kubenode.client import Cluster, wait_until
from kubenode.installation import Installation, installed
from kubenode.node import Node, all_nodes, node
from kubenode.shared import shared, turn
from kubenode.store import Store, forwarded
from runs import Run, dataset

LONGEST_START = 75 * 60
"""Seconds, when Kubernetes and all images must be built."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are marked, and those that disturb others are the last.

    The first one may have to wait for Kubernetes to be built.
    """
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.cluster)
        item.add_marker(pytest.mark.slow)
    items.sort(key=is_serial)
    if ours:
        min(ours, key=is_serial).add_marker(pytest.mark.timeout(LONGEST_START))


def is_serial(item: pytest.Item) -> bool:
    """Whether no other test on the cluster may run meanwhile."""
    return item.get_closest_marker("serial") is not None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test has its turn from its first fixture to its last; no timeout counts while it waits."""
    if item.get_closest_marker("cluster") is None:
        return (yield)
    with turn(serial=is_serial(item)):
        return (yield)


@pytest.fixture(scope="session")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all processes of this run of tests."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def cluster(_folder: Path) -> Iterator[Cluster]:
    """A cluster with MinIO, KubeRay and the project's images."""
    if given := os.environ.get("E2E_KUBECONFIG"):
        if Path(given) == kubeconfig():
            lifecycle.update_images()
        yield Cluster(Path(given))
        return
    if problem := tools.missing_requirement():
        pytest.skip(f"{problem}; `make e2e` runs them on the cluster of KUBECONFIG")
    with shared(_folder, "cluster", _start, lambda started: lifecycle.down() if started else None):
        yield Cluster(kubeconfig())


def _start() -> str:
    """Empty if it was up before, and is to stay so."""
    was_up = lifecycle.is_up()
    lifecycle.up()
    return "" if was_up else "started"


@pytest.fixture(scope="session")
def _store(cluster: Cluster) -> Iterator[Store]:
    if cluster.kubeconfig == kubeconfig():
        yield Store(cluster, f"http://{all_nodes()[0].address}:30900")
    else:
        with forwarded(cluster) as address:
            yield Store(cluster, address)


@pytest.fixture
def minio(_store: Store) -> Iterator[Store]:
    """The cluster's MinIO; a test that stops it need not start it again."""
    _store.wait()
    yield _store
    _store.start()


@pytest.fixture(scope="session")
def kindling(cluster: Cluster, _store: Store, _folder: Path) -> Iterator[Installation]:
    """Kindling, as its chart installs it, serving the namespace `runs`."""
    _store.wait()
    with installed(cluster, _store, _folder) as installation:
        yield installation


@pytest.fixture(scope="session")
def corpus(kindling: Installation) -> Run:
    """A small dataset, built by one pod, in the default storage."""
    kindling.cluster.apply(dataset("corpus"), namespace=kindling.runs)
    build = Run(kindling.cluster, "DatasetBuild", "corpus", kindling.runs)
    build.finish()
    return build


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A new namespace with Pod Security `restricted`, which ends with the test."""
    with cluster.namespace() as name:
        yield name


class Power:
    """Faults of machines and of the control plane."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._killed: set[Node] = set()
        self._disconnected: set[Node] = set()

    def kill_node(self, name: str) -> None:
        """Cut a node's power."""
        node(name).kill()
        self._killed.add(node(name))

    def start_node(self, name: str) -> None:
        """Switch it on again, and wait until it is ready."""
        node(name).start()
        self._killed.discard(node(name))
        self._cluster.wait_for_condition("node", name, "Ready", seconds=60)

    def disconnect_node(self, name: str) -> None:
        """Cut a node's wire."""
        node(name).disconnect()
        self._disconnected.add(node(name))

    def reconnect_node(self, name: str) -> None:
        """Mend it, and wait until the node is ready."""
        node(name).reconnect()
        self._disconnected.discard(node(name))
        self._cluster.wait_for_condition("node", name, "Ready", seconds=60)

    def restart(self, daemon: str) -> None:
        """Kill a daemon of the control plane (one of `control_plane.DAEMONS`), and start it again."""
        control_plane.restart(daemon)

    def restore(self) -> None:
        """All nodes are on, and ready."""
        for killed in list(self._killed):
            self.start_node(killed.name)
        for disconnected in list(self._disconnected):
            self.reconnect_node(disconnected.name)
        wait_until("the API server answers", lambda: self._cluster.find("nodes"), 60)


@pytest.fixture
def power(cluster: Cluster) -> Iterator[Power]:
    """Kills and starts nodes and daemons; what is off after the test is switched on."""
    if cluster.kubeconfig != kubeconfig():
        pytest.skip("only nodes of the cluster on this machine can be switched off")
    power = Power(cluster)
    yield power
    power.restore()
