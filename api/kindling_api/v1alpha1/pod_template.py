"""What a document may say of its pods beside their amounts, in Kubernetes' own names.

`pod_volumes.py` has what they mount, `pod_affinity.py` how they are placed. There is no field for what Pod Security
`restricted` forbids, but for `hostNetwork`, which an installation has to allow; and none for commands, further
containers and security contexts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field, model_validator

from kindling_api.base import Spec
from kindling_api.errors import finding
from kindling_api.quantities import ByteSize
from kindling_api.rules import OneOf, cel, check_one
from kindling_api.v1alpha1.pod_affinity import (
    LONGEST_KEY,
    QUALIFIED_PATTERN,
    Affinity,
    Labels,
    TopologySpreadConstraint,
    check_keys,
)
from kindling_api.v1alpha1.pod_volumes import LocalReference, ObjectName, ObjectReference, Volume, VolumeMount

VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
DATA_KEY_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"

DataKey = Annotated[str, Field(pattern=DATA_KEY_PATTERN, max_length=253)]
"""A key of a Secret or ConfigMap."""
VariableName = Annotated[str, Field(pattern=VARIABLE_PATTERN, max_length=128)]


class PodMetadata(Spec):
    """Labels and annotations."""

    labels: Labels = {}
    """Labels, of the keys that the installation lets through (`runs.pods.carriedLabels`)."""
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32)] = {}
    """Annotations, likewise (`runs.pods.carriedAnnotations`)."""

    @model_validator(mode="after")
    def _keys(self) -> Self:
        check_keys("labels", self.labels)
        check_keys("annotations", self.annotations)
        return self


class KeyReference(Spec):
    """One key of a Secret or ConfigMap of this namespace."""

    name: ObjectName
    """Its name."""
    key: DataKey
    """The key."""
    optional: bool = False
    """Whether the pod starts without it."""


class ValueSource(OneOf):
    """Where a variable's value is; exactly one."""

    secret_key_ref: KeyReference | None = None
    """In a Secret."""
    config_map_key_ref: KeyReference | None = None
    """In a ConfigMap."""


class EnvironmentVariable(Spec):
    """A variable, with `value` or `valueFrom`."""

    model_config = cel(("has(self.value) != has(self.valueFrom)", "exactly one of value, valueFrom must be given"))

    name: VariableName
    """Its name, one that the installation allows (`runs.allow.env`)."""
    value: Annotated[str, Field(max_length=4096)] | None = None
    """Its value, taken as it stands: `$(NAME)` is not replaced."""
    value_from: ValueSource | None = None
    """Where its value is."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        check_one(self, "value", "value_from")
        return self


class EnvironmentSource(Spec):
    """All keys of a Secret or ConfigMap as variables."""

    model_config = cel(
        ("has(self.secretRef) != has(self.configMapRef)", "exactly one of secretRef, configMapRef must be given")
    )

    prefix: VariableName | None = None
    """What is put before each key."""
    secret_ref: ObjectReference | None = None
    """A Secret, one that the installation allows (`runs.allow.envFrom`)."""
    config_map_ref: ObjectReference | None = None
    """A ConfigMap, likewise."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        check_one(self, "secret_ref", "config_map_ref")
        return self


class PodTemplate(Spec):
    """What the pods have beside what the installation gives them (docs/operations.md, "Pods"). `kindling run`, which
    makes no pods, leaves it out of account."""

    metadata: PodMetadata = PodMetadata()
    """Labels and annotations of the pods."""
    env: Annotated[tuple[EnvironmentVariable, ...], Field(max_length=64)] = ()
    """Variables of the program."""
    env_from: Annotated[tuple[EnvironmentSource, ...], Field(max_length=16)] = ()
    """Variables from all keys of Secrets and ConfigMaps."""
    volumes: Annotated[tuple[Volume, ...], Field(max_length=32)] = ()
    """Volumes beside those that every pod has."""
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=32)] = ()
    """Where they are mounted."""
    affinity: Affinity = Affinity()
    """Near or far from what the pods run; what is absent stays as it is without a template."""
    topology_spread_constraints: Annotated[tuple[TopologySpreadConstraint, ...], Field(max_length=8)] = ()
    """How the pods are spread over nodes, racks or zones."""
    priority_class_name: ObjectName | None = None
    """The PriorityClass (`runs.allow.priorityClasses`)."""
    scheduler_name: ObjectName | None = None
    """The scheduler (`runs.allow.schedulers`); absent means the cluster's own."""
    service_account_name: ObjectName | None = None
    """The ServiceAccount (`runs.allow.serviceAccounts`). Its token for the API server is in no pod: it is what a cloud
    takes the pods for."""
    runtime_class_name: ObjectName | None = None
    """The RuntimeClass (`runs.allow.runtimeClasses`)."""
    image_pull_secrets: Annotated[tuple[LocalReference, ...], Field(max_length=16)] = ()
    """Secrets with registry credentials, beside the installation's."""
    host_network: bool | None = None
    """Use the node's network (`runs.allow.hostNetwork`); no NetworkPolicy holds there, and Pod Security takes such pods
    in namespaces of the level `privileged` alone."""
    shared_memory: ByteSize | None = None
    """The most that `/dev/shm` holds; absent means that only the pod's memory limits it."""
    ephemeral_storage: ByteSize | None = None
    """What the pods use of the node's disk, for `/tmp` and logs: request and limit."""
    extended_resources: Annotated[dict[str, Annotated[int, Field(ge=1, le=4096)]], Field(max_length=16)] = {}
    """Further devices of each pod, as in `rdma/hca: 1`."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        check_once("env", "name", (one.name for one in self.env))
        check_once("volumes", "name", (one.name for one in self.volumes))
        check_once("volumeMounts", "mountPath", (one.mount_path for one in self.volume_mounts))
        return self

    @model_validator(mode="after")
    def _devices(self) -> Self:
        for key in self.extended_resources:
            if not re.fullmatch(QUALIFIED_PATTERN, key) or "/" not in key or "kubernetes.io/" in key:
                allowed = f"vendor/name of at most {LONGEST_KEY} characters, and none of kubernetes.io"
                found = f"{key!r} in extendedResources"
                raise ValueError(finding(found=found, allowed=allowed, remedy="write it as in rdma/hca"))
        return self


def check_once(field: str, key: str, values: Iterable[str]) -> None:
    """Raises ValueError where two items of a list have the same key."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            found, allowed = f"two of {field} with {key} {value}", f"each {key} once"
            raise ValueError(finding(found=found, allowed=allowed, remedy="remove one of them"))
        seen.add(value)
