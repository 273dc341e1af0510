"""A cluster from its start to its end."""

from __future__ import annotations

import json
import shutil

from kubenode import tools
from kubenode.additions import install_additions, kubectl
from kubenode.certificates import make_certificates
from kubenode.control_plane import forget_replaced_images, is_healthy, start_control_plane, stop_control_plane
from kubenode.images import build_images, push_images
from kubenode.node import Node, all_nodes
from kubenode.places import LOGS, PKI, STATE
from kubenode.processes import alone, wait

DEFAULT_NODES = 2


def up(count: int = DEFAULT_NODES, *, bare: bool = False) -> None:
    """Start a cluster, or what of it does not run; a `bare` one has no MinIO, no KubeRay and no images of the project.

    Raises:
        ClusterError: something could not be built or did not start.
    """
    with alone("cluster"):
        tools.install(tools.CLUSTER if bare else tools.CLUSTER + tools.ADDITIONS)
        if not is_up():
            _destroy()  # what a cluster left that was killed
            forget_replaced_images()
        _start(count)
        if not bare:
            install_additions(all_nodes()[0])
            _update_images()


def update_images() -> None:
    """Build what changed, push it, and have every node fetch it."""
    with alone("cluster"):
        _update_images()


def down() -> None:
    """Stop everything, and leave nothing but programs and images."""
    with alone("cluster"):
        _destroy()


def is_up() -> bool:
    """Whether a cluster runs on this machine."""
    return (PKI / "admin.crt").exists() and is_healthy()


def _start(count: int) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    make_certificates()
    start_control_plane()
    nodes = [Node(index) for index in range(1, count + 1)]
    for node in nodes:
        node.create(nodes)
        node.start()
    wait("nodes", lambda: _ready_nodes() >= count, 180)


def _update_images() -> None:
    build_images()
    for image in push_images():
        for node in all_nodes():
            node.pull(image)


def _destroy() -> None:
    for node in all_nodes():
        node.destroy()
    stop_control_plane()
    shutil.rmtree(STATE, ignore_errors=True)


def _ready_nodes() -> int:
    nodes = json.loads(kubectl("get", "nodes", "-o", "json", check=False) or '{"items": []}')["items"]
    conditions = [condition for node in nodes for condition in node["status"].get("conditions", [])]
    return sum(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
