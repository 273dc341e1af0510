"""What an installation decides: images, default storage, and the namespaces that are watched.

The chart writes it as one JSON file, which is mounted into the operator's pod.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from kindling_api.base import Spec
from kindling_api.v1alpha1.alignment_method import ModuleName
from kindling_api.v1alpha1.resources import Toleration
from kindling_api.v1alpha1.storage import ENDPOINT_PATTERN, StorageSpec

MetadataKey = Annotated[str, Field(min_length=1, max_length=317)]
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
    """When images are pulled, as in Kubernetes: Always, IfNotPresent, Never."""
    pull_secrets: tuple[str, ...] = ()
    """Names of Secrets, in each run's namespace, with registry credentials."""
    allowed_prefixes: tuple[str, ...] = ()
    """What `spec.image` of a run may begin with, as in `registry.example.com/ml/`; none: no run may choose one."""


class Rewards(Spec):
    """What documents may name as a reward."""

    allowed_modules: tuple[ModuleName, ...] = ()
    """The modules whose functions `rewards[].function` of a run may name; none: no run may name one."""


class Pods(Spec):
    """What all pods of documents have in this installation: where they may run, and what of a document's metadata they
    and their Jobs are given."""

    node_selector: dict[str, str] = {}
    """Labels of the nodes for them; a run may ask for further ones."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that they tolerate, beside those that a run names."""
    priority_classes: tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] = ()
    """The PriorityClasses that `spec.priority` of a run without a queue may name: with one, its pods may push aside
    those of anybody in the cluster. None: no run may name one."""
    carried_labels: tuple[MetadataKey, ...] = ("kueue.x-k8s.io/priority-class",)
    """Labels of a document that its Jobs and pods get: keys, or prefixes that end in `/`. Not all, since labels decide
    which Services and policies of others a pod belongs to."""
    carried_annotations: tuple[MetadataKey, ...] = (
        "cluster-autoscaler.kubernetes.io/safe-to-evict",
        "karpenter.sh/do-not-disrupt",
        "linkerd.io/inject",
        "sidecar.istio.io/inject",
    )
    """Annotations likewise. Not all, since some choose the image of a sidecar."""


class HuggingFace(Spec):
    """How the pods of this installation reach the Hugging Face Hub."""

    endpoint: Annotated[str, Field(pattern=ENDPOINT_PATTERN, max_length=512)] | None = None
    """Another Hub, or a mirror, in the place of https://huggingface.co."""


class Settings(Spec):
    """One installation."""

    images: Images
    rewards: Rewards = Rewards()
    pods: Pods = Pods()
    hugging_face: HuggingFace = HuggingFace()
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
