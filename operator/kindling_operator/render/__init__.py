"""One attempt of a run as Kubernetes objects: pure, and the only place in which they are written down.

`attempt.py` has names, labels and owner, `pods.py` what every pod is; then read `jobs.py`, `ray.py` and `network.py`.
`python -m kindling_operator.render FILE…` prints the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kindling_api.v1alpha1.runfile import AlignmentRunFile, DatasetBuildFile, RunFile
from kindling_operator.render.attempt import Attempt, check
from kindling_operator.render.jobs import dataset_job, training_job, training_service
from kindling_operator.render.network import network_policy
from kindling_operator.render.pods import run_file_map
from kindling_operator.render.ray import ray_job, uses_ray_job
from kindling_operator.settings import Settings
from kindling_operator.world import Object


@dataclass(frozen=True)
class Rendered:
    """The objects of one attempt."""

    apply: tuple[Object, ...]
    """For server-side apply: the Service and the NetworkPolicy."""
    create: tuple[Object, ...]
    """Created once, in this order: the ConfigMap with the run file, which is immutable, and the Job or RayJob."""


def render(settings: Settings, resource: Object, run_file: RunFile, avoided: Sequence[str] = ()) -> Rendered:
    """The objects of the attempt that `run_file` describes.

    Args:
        resource: the custom resource, which will own the objects.
        avoided: nodes to which no pod that trains goes while there are others.

    Raises:
        SpecError: the run cannot be run on a cluster, as its store is a folder; or not in this installation, which
            does not allow what it asks of its pods.
    """
    check(run_file)
    if isinstance(run_file, AlignmentRunFile):
        run_file = run_file.model_copy(update={"reward_modules": settings.rewards.allowed_modules})
    attempt = Attempt(settings, resource, run_file)
    if not isinstance(run_file, DatasetBuildFile):
        apply = (training_service(attempt), network_policy(attempt))
        return Rendered(apply, create=(run_file_map(attempt), training_job(attempt, run_file, avoided)))
    job = ray_job(attempt, run_file) if uses_ray_job(run_file) else dataset_job(attempt, run_file)
    return Rendered(apply=(network_policy(attempt),), create=(run_file_map(attempt), job))
