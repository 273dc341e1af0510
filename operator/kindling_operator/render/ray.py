"""A RayJob of KubeRay: a Ray cluster for one build, and our submitter, which tells its progress and its last word."""

from __future__ import annotations

from typing import TypeGuard

from kindling_api.v1alpha1.runfile import DatasetBuildFile, RunFile
from kindling_operator.render.attempt import Attempt
from kindling_operator.render.pods import Container, fixed, hub_environment, pod_template, program, spread
from kindling_operator.render.secrets import of_run
from kindling_operator.world import Object

DASHBOARD_PORT = 8265
"""Where the head takes jobs, and tells KubeRay how they are."""

KUBERAY_LABELS = {"app.kubernetes.io/name": "kuberay-operator"}
"""The pods of KubeRay's operator, as its chart labels them."""

SUBMITTER_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}
"""Enough to talk to the head and to wait."""

_OBJECT_STORE = {"object-store-memory": str(128 << 20)}
"""In bytes, instead of a third of the pod's memory: tasks exchange files through the store, and here small arrays."""


def uses_ray_job(run: RunFile) -> TypeGuard[DatasetBuildFile]:
    """Whether KubeRay runs it, rather than a Job."""
    return isinstance(run, DatasetBuildFile) and run.spec.engine.workers > 0


def ray_job(attempt: Attempt, run: DatasetBuildFile) -> Object:
    """The head runs the driver and no tasks, the workers run the tasks, the submitter reports.

    What the RayJob leaves when it is done is the submitter's pod, and in it the last word. Nothing is retried:
    another attempt is another RayJob.
    """
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": attempt.job_metadata(),
        "spec": {
            "submissionMode": "K8sJobMode",
            "jobId": attempt.name,
            "backoffLimit": 0,
            "submitterConfig": {"backoffLimit": 0},
            "shutdownAfterJobFinishes": True,
            "suspend": attempt.waits,
            "submitterPodTemplate": _submitter(attempt),
            "rayClusterSpec": _cluster(attempt, run),
        },
    }


def _cluster(attempt: Attempt, run: DatasetBuildFile) -> Object:
    workers = run.spec.engine.workers
    return {
        "rayVersion": attempt.settings.ray_version,
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0", **_OBJECT_STORE},
            "template": _ray_pod(attempt, run),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": workers,
                "minReplicas": workers,
                "maxReplicas": workers,
                "rayStartParams": dict(_OBJECT_STORE),
                "template": _ray_pod(attempt, run),
            }
        ],
    }


def _ray_pod(attempt: Attempt, run: DatasetBuildFile) -> Object:
    """A node of Ray; KubeRay writes its command. A Ray that dies starts again in its pod, and its tasks elsewhere."""
    amounts = run.spec.engine.resources
    container = Container(
        image=attempt.image,
        resources=fixed(amounts.cpu, amounts.memory),
        run_file=attempt.name,
        secrets=of_run(run.spec, run.output),
        environment={"RAY_USAGE_STATS_ENABLED": "0", **hub_environment(attempt.settings)},
    )
    placed = {"affinity": spread(attempt.labels), "restartPolicy": "Always", **attempt.pod_priority()}
    return pod_template(attempt.settings, attempt.pod_metadata(), container, **placed)


def _submitter(attempt: Attempt) -> Object:
    container = Container(
        image=attempt.image,
        resources=SUBMITTER_RESOURCES,
        command=program(attempt, "kindling_dataprep.executors.submit"),
        run_file=attempt.name,
    )
    return pod_template(attempt.settings, attempt.pod_metadata(), container, **attempt.pod_priority())
