"""Kindling on a cluster, installed by its chart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubenode.client import RESTRICTED, Cluster, program
from kubenode.places import PROJECT, REGISTRY
from kubenode.processes import run
from kubenode.shared import shared
from kubenode.store import ACCESS_KEY, ENDPOINT, SECRET_KEY, Store

CHART = PROJECT / "charts" / "kindling"
RELEASE = "kindling"


@dataclass(frozen=True)
class Installation:
    """One release, with MinIO as its default storage."""

    cluster: Cluster
    store: Store
    bucket: str
    """Where runs keep their results."""
    namespace: str = "kindling"
    """The operator's own."""
    runs: str = "runs"
    """The namespace that it watches."""

    def values(self) -> dict[str, Any]:
        """Of the chart."""
        return {
            "images": {"registry": REGISTRY, "tag": "dev", "allowedPrefixes": [f"{REGISTRY}/"]},
            "operator": {"nodeSelector": {"kubernetes.io/hostname": "node-1"}},  # where the store is
            "watch": {"namespaces": [self.runs]},
            "runs": {"pods": {"priorityClasses": ["first-in-line"]}},
            "rewards": {"allowedModules": ["team.rewards"]},
            "storage": {
                "uri": f"s3://{self.bucket}/runs",
                "endpoint": ENDPOINT,
                "credentials": {"accessKeyId": ACCESS_KEY, "secretAccessKey": SECRET_KEY},
            },
        }

    def helm(self, *command: str, values: dict[str, Any] | None = None) -> str:
        """What Helm says, about releases in the operator's namespace.

        Raises:
            ClusterError: it failed.
        """
        known = (program("helm"), f"--kubeconfig={self.cluster.kubeconfig}", f"--namespace={self.namespace}")
        given = () if values is None else ("--values", "-")
        return run(*known, *command, *given, standard_input=json.dumps(values) if given else None).stdout

    def upgrade(self, *options: str, **values: Any) -> str:
        """Install or upgrade, with further values of the chart at its top level; waits until the operator is ready."""
        wait = ("--wait", "--timeout=120s")
        command = ("upgrade", "--install", RELEASE, str(CHART), *wait, *options)
        return self.helm(*command, values={**self.values(), **values})


@contextmanager
def installed(cluster: Cluster, store: Store, folder: Path) -> Iterator[Installation]:
    """Two namespaces with Pod Security `restricted` enforced, the operator in one, and runs in the other.

    Args:
        folder: of the processes that share the installation.
    """

    def install() -> str:
        installation = Installation(cluster, store, store.new_bucket("kindling"))
        for name in (installation.namespace, installation.runs):
            cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
        installation.upgrade()
        return installation.bucket

    def uninstall(bucket: str) -> None:
        installation = Installation(cluster, store, bucket)
        cluster.kubectl("delete", "kindling", "--all", "-n", installation.runs, "--timeout=60s", check=False)
        installation.helm("uninstall", RELEASE, "--wait", "--ignore-not-found")
        for name in (installation.namespace, installation.runs):
            cluster.kubectl("delete", "namespace", name, "--timeout=60s", check=False)

    with shared(folder, "kindling", install, uninstall) as bucket:
        yield Installation(cluster, store, bucket)
