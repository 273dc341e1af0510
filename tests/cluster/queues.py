"""Kueue's objects, as an administrator makes them for a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kubenode.client import Cluster, Object
from runs import Run

VERSION = "kueue.x-k8s.io/v1beta2"
FLAVOR = "any-node"


@dataclass(frozen=True)
class Queues:
    """Makes queues in one namespace."""

    cluster: Cluster
    namespace: str

    def start(self) -> None:
        """What all queues share: a flavor of any node."""
        self.cluster.apply(_object("ResourceFlavor", FLAVOR, {}))

    @contextmanager
    def queue(self, name: str, cpu: str, cohort: str | None = None) -> Iterator[str]:
        """A LocalQueue with so many cores of its own, where a run of higher priority pushes aside one of lower.

        Args:
            cohort: lends what its queues do not use.
        """
        quotas = [{"name": "cpu", "nominalQuota": cpu}, {"name": "memory", "nominalQuota": "64Gi"}]
        group = {"coveredResources": ["cpu", "memory"], "flavors": [{"name": FLAVOR, "resources": quotas}]}
        spec: Object = {
            "namespaceSelector": {},
            "resourceGroups": [group],
            "preemption": {"withinClusterQueue": "LowerPriority"},
            **({"cohortName": cohort} if cohort else {}),
        }
        self.cluster.apply(_object("ClusterQueue", name, spec))
        self.cluster.apply(_object("LocalQueue", name, {"clusterQueue": name}), namespace=self.namespace)
        try:
            yield name
        finally:
            self.cluster.delete("localqueue", name, self.namespace, "--timeout=60s")
            self.cluster.delete("clusterqueue", name, "default", "--timeout=60s")

    @contextmanager
    def priority(self, name: str, value: int) -> Iterator[str]:
        """A WorkloadPriorityClass."""
        self.cluster.apply({**_object("WorkloadPriorityClass", name, {}), "value": value})
        try:
            yield name
        finally:
            self.cluster.delete("workloadpriorityclass", name, "default", "--timeout=60s")

    def end(self) -> None:
        """The flavor goes, once no queue has it."""
        self.cluster.delete("resourceflavor", FLAVOR, "default", "--timeout=60s")

    def borrowed(self, name: str) -> str:
        """How many cores a queue has of others now."""
        queue = self.cluster.get("clusterqueue", name) or {}
        flavors = queue.get("status", {}).get("flavorsUsage", [])
        cores = [one for flavor in flavors for one in flavor["resources"] if one["name"] == "cpu"]
        return str(cores[0].get("borrowed", "0")) if cores else "0"

    def workload(self, run: Run) -> Object:
        """What Kueue made of the newest attempt of a run; an empty object where there is none.

        Raises:
            AssertionError: the run is not there.
        """
        jobs = f"kindling.dev/name={run.name},kindling.dev/attempt={run.status().get('attempt', 0)}"
        kinds = ("job", "rayjob")
        uids = [job["metadata"]["uid"] for kind in kinds for job in self.cluster.find(kind, self.namespace, jobs)]
        found = [one for uid in uids for one in self.cluster.find("workload", self.namespace, f"{JOB_UID}={uid}")]
        return found[0] if found else {}


JOB_UID = "kueue.x-k8s.io/job-uid"


def _object(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": VERSION, "kind": kind, "metadata": {"name": name}, **({"spec": spec} if spec else {})}
