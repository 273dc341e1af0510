"""What an installation decides: images, default storage, and the namespaces that are watched.

The chart writes it as one JSON file, which is mounted into the operator's pod.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from kindling_api.base import Spec
from kindling_api.v1alpha1.storage import StorageSpec

ImageReference = Annotated[str, Field(min_length=1, max_length=512)]


class Images(Spec):
    """The images of the pods that do the work."""

    trainer: ImageReference
    """Pretraining and alignment."""
    dataprep: ImageReference
    """Data preparation; also Ray's head, workers and submitter."""
    serve: ImageReference
    """What serves a finished model."""
    pull_policy: str = "IfNotPresent"
    """As in Kubernetes: Always, IfNotPresent, Never."""
    pull_secrets: tuple[str, ...] = ()
    """Names of Secrets, in each run's namespace, with registry credentials."""
    allowed_prefixes: tuple[str, ...] = ()
    """What `spec.image` of a run may begin with, as in `registry.example.com/ml/`; none: no run may choose one."""


class Settings(Spec):
    """One installation."""

    images: Images
    storage: StorageSpec | None = None
    """The default storage; its Secret is in every watched namespace, under the name given here."""
    namespaces: tuple[str, ...] = ()
    """The namespaces watched; none means all of the cluster."""
    namespace: str = "kindling"
    """The operator's own."""
    operator_labels: dict[str, str] = {"app.kubernetes.io/name": "kindling"}
    """Labels of the operator's pods: NetworkPolicies let them read progress."""
    scraper_namespace: str | None = None
    """The namespace of the metrics scraper, which may read `/metrics` of runs; none: only the operator may."""
    cluster_domain: str = "cluster.local"
    """The cluster's DNS domain."""
    ray_version: str = "2.60.0"
    """The Ray in the dataprep image, as KubeRay wants to know it."""
    lost_node_seconds: Annotated[int, Field(ge=1)] = 10
    """How long a pod stays bound to a node that does not answer."""


def read_settings(path: Path) -> Settings:
    """The settings at `path`.

    Raises:
        pydantic.ValidationError: it was not written by the chart.
    """
    return Settings.model_validate_json(path.read_bytes())
