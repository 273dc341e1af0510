"""What an installation decides: images, default storage, and the namespaces that are watched.

The chart writes it as one JSON file, which is mounted into the operator's pod.
"""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from kindling_api.base import NAME_PATTERN, Spec
from kindling_api.errors import finding
from kindling_api.v1alpha1.alignment_method import ModuleName
from kindling_api.v1alpha1.pod_template import DataKey, PodTemplate, VariableName
from kindling_api.v1alpha1.pod_volumes import DriverName, ObjectName
from kindling_api.v1alpha1.resources import Toleration
from kindling_api.v1alpha1.storage import ENDPOINT_PATTERN, StorageSpec
from kindling_operator.reserved import reserved

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
    carried_labels: tuple[MetadataKey, ...] = ("kueue.x-k8s.io/priority-class",)
    """Labels of a document that its Jobs and pods get: keys, or prefixes that end in `/`. Not all, since labels decide
    which Services and policies of others a pod belongs to."""
    carried_annotations: tuple[MetadataKey, ...] = (
        "cluster-autoscaler.kubernetes.io/safe-to-evict",
        "karpenter.sh/do-not-disrupt",
        "kueue.x-k8s.io/podset-preferred-topology",
        "kueue.x-k8s.io/podset-required-topology",
        "kueue.x-k8s.io/podset-unconstrained-topology",
        "linkerd.io/inject",
        "sidecar.istio.io/inject",
    )
    """Annotations likewise. Not all, since some choose the image of a sidecar."""


HARMLESS_VARIABLES = (
    "GLOO_SOCKET_IFNAME", "LANG", "LC_ALL", "NCCL_ALGO", "NCCL_BUFFSIZE", "NCCL_CROSS_NIC", "NCCL_DEBUG",
    "NCCL_DEBUG_SUBSYS", "NCCL_IB_DISABLE", "NCCL_IB_GID_INDEX", "NCCL_IB_HCA", "NCCL_IB_QPS_PER_CONNECTION",
    "NCCL_IB_RETRY_CNT", "NCCL_IB_SL", "NCCL_IB_TC", "NCCL_IB_TIMEOUT", "NCCL_MAX_NCHANNELS", "NCCL_MIN_NCHANNELS",
    "NCCL_NET_GDR_LEVEL", "NCCL_NTHREADS", "NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_PROTO", "NCCL_SHM_DISABLE",
    "NCCL_SOCKET_FAMILY", "NCCL_SOCKET_IFNAME", "NCCL_SOCKET_NTHREADS", "OMP_NUM_THREADS", "TZ",
)  # fmt: skip
"""Variables that choose networks, languages and amounts: none names a program, a library, a file or a server.

Source: NVIDIA, "NCCL Environment Variables"; those that name files and plugins (`NCCL_NET_PLUGIN`) are left out."""


class Allowed(Spec):
    """What documents may ask for in `spec.podTemplate`, beside what the installation's own template has."""

    env: Annotated[tuple[VariableName, ...], Field(max_length=256)] = HARMLESS_VARIABLES
    """The variables that they may set. Whoever sets LD_PRELOAD, PATH or PYTHONPATH chooses what code is run."""
    env_from: Annotated[tuple[ObjectName, ...], Field(max_length=256)] = ()
    """The Secrets and ConfigMaps, by name, of which they may take all keys as variables, whatever these are called."""
    mount_paths: Annotated[
        tuple[Annotated[str, Field(pattern=r"^/(.+/)?$", max_length=512)], ...], Field(max_length=256)
    ] = ("/data/", "/mnt/")
    """The folders, up to a slash, below which they may mount volumes: nothing of the image may be there."""
    csi_drivers: Annotated[tuple[DriverName, ...], Field(max_length=256)] = ()
    """The drivers of volumes that are made for a pod."""
    service_accounts: Annotated[tuple[ObjectName, ...], Field(max_length=256)] = ()
    """The ServiceAccounts that their pods may run as."""
    priority_classes: Annotated[tuple[ObjectName, ...], Field(max_length=256)] = ()
    """The PriorityClasses, which decide whose pods are stopped for whom."""
    schedulers: Annotated[tuple[ObjectName, ...], Field(max_length=256)] = ()
    """The schedulers beside the cluster's own."""
    runtime_classes: Annotated[tuple[ObjectName, ...], Field(max_length=256)] = ()
    """The RuntimeClasses."""
    host_network: bool = False
    """Whether their pods may use the node's network, where no NetworkPolicy holds."""


class HuggingFace(Spec):
    """How the pods of this installation reach the Hugging Face Hub."""

    endpoint: Annotated[str, Field(pattern=ENDPOINT_PATTERN, max_length=512)] | None = None
    """Another Hub, or a mirror, in the place of https://huggingface.co."""


class Egress(Spec):
    """Where pods of documents may connect to; nothing here means anywhere."""

    cidrs: Annotated[tuple[str, ...], Field(max_length=256)] = ()
    """Blocks of addresses, as in `10.20.0.0/16`."""
    namespaces: Annotated[
        tuple[Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)], ...], Field(max_length=256)
    ] = ()
    """Namespaces of the cluster, with all of their pods."""

    @field_validator("cidrs")
    @classmethod
    def _blocks(cls, cidrs: tuple[str, ...]) -> tuple[str, ...]:
        for cidr in cidrs:
            ip_network(cidr)  # ValueError: it is none, or has bits beyond its prefix
            if "/" not in cidr:
                raise ValueError(
                    finding(found=cidr, allowed="a block of addresses", remedy=f"write {cidr}/32, or /128")
                )
        return cidrs


class CaBundle(Spec):
    """Certificates of authorities that are not public ones."""

    config_map: ObjectName
    """The ConfigMap, in each namespace with runs."""
    key: DataKey = "ca.crt"
    """Its key with the certificates, in PEM."""


class Settings(Spec):
    """One installation."""

    images: Images
    rewards: Rewards = Rewards()
    pods: Pods = Pods()
    pod_template: PodTemplate = PodTemplate()
    """What all pods of documents have beside; a document's own template goes before it."""
    allow: Allowed = Allowed()
    egress: Egress = Egress()
    hugging_face: HuggingFace = HuggingFace()
    storage: StorageSpec | None = None
    """The default storage; its Secret is in every watched namespace, under the name given here."""
    ca_bundle: CaBundle | None = None
    """The authorities by which stores and the Hub are known, instead of the public ones."""
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

    @model_validator(mode="after")
    def _template_leaves_ours(self) -> Self:
        for field, found, allowed in reserved(self.pod_template):
            remedy = "remove it from runs.podTemplate of the chart"
            raise ValueError(f"podTemplate.{field}: {finding(found=found, allowed=allowed, remedy=remedy)}")
        return self


def read_settings(path: Path) -> Settings:
    """The settings at `path`.

    Raises:
        pydantic.ValidationError: it was not written by the chart.
    """
    return Settings.model_validate_json(path.read_bytes())
