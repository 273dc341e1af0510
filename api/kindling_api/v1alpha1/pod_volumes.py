"""Volumes of pods, in Kubernetes' own form: those that Pod Security `restricted` allows, and no others."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kindling_api.base import NAME_PATTERN, Spec
from kindling_api.quantities import ByteSize
from kindling_api.rules import cel, check_one

OBJECT_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
PATH_PATTERN = r"^(/\.?[A-Za-z0-9_-][A-Za-z0-9._-]*)+$"
SUB_PATH_PATTERN = r"^\.?[A-Za-z0-9_-][A-Za-z0-9._-]*(/\.?[A-Za-z0-9_-][A-Za-z0-9._-]*)*$"

ObjectName = Annotated[str, Field(pattern=OBJECT_PATTERN, max_length=253)]
VolumeName = Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
DriverName = Annotated[str, Field(pattern=OBJECT_PATTERN, max_length=63)]
MountPath = Annotated[str, Field(pattern=PATH_PATTERN, max_length=512)]
"""Absolute, without `..` and without a slash at its end."""


class ObjectReference(Spec):
    """A Secret or ConfigMap of this namespace."""

    name: ObjectName
    """Its name."""
    optional: bool = False
    """Whether the pod starts without it."""


class ClaimVolume(Spec):
    """A PersistentVolumeClaim of this namespace."""

    claim_name: ObjectName
    """Its name."""
    read_only: bool = False
    """Whether it is only read."""


class EmptyDirVolume(Spec):
    """A folder that goes with the pod."""

    medium: Literal["", "Memory"] = ""
    """`Memory` counts towards the pod's memory; otherwise it is on the node's disk."""
    size_limit: ByteSize | None = None
    """How large it may become."""


class LocalReference(Spec):
    """An object of this namespace, by its name."""

    name: ObjectName
    """The name."""


class CsiVolume(Spec):
    """A volume that a CSI driver makes for the pod."""

    driver: DriverName
    """The driver, one that the installation allows (`runs.allow.csiDrivers`)."""
    read_only: bool = False
    """Whether it is only read."""
    fs_type: Annotated[str, Field(max_length=64)] | None = None
    """The file system."""
    volume_attributes: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32)] = {}
    """What the driver is told."""
    node_publish_secret_ref: LocalReference | None = None
    """The Secret that the driver is given."""


class StorageRequest(Spec):
    """How much is asked for."""

    storage: ByteSize
    """Size of the volume."""


class ClaimResources(Spec):
    """How large a volume is."""

    requests: StorageRequest
    """The size."""


class ClaimSpec(Spec):
    """A claim that is made for the pod and goes with it."""

    access_modes: Annotated[
        tuple[Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"], ...],
        Field(min_length=1, max_length=4),
    ] = ("ReadWriteOnce",)
    """Who may have it at a time."""
    storage_class_name: ObjectName | None = None
    """The StorageClass; absent means the cluster's default."""
    resources: ClaimResources
    """Its size."""


class ClaimTemplate(Spec):
    """The claim."""

    spec: ClaimSpec
    """What is claimed."""


class EphemeralVolume(Spec):
    """A PersistentVolumeClaim that is made with the pod and goes with it."""

    volume_claim_template: ClaimTemplate
    """The claim."""


class SecretVolume(Spec):
    """The keys of a Secret of this namespace as files."""

    secret_name: ObjectName
    """Its name."""
    optional: bool = False
    """Whether the pod starts without it."""


class Volume(Spec):
    """A volume; beside `name` exactly one field says what it is."""

    model_config = cel(
        (
            "[has(self.persistentVolumeClaim), has(self.emptyDir), has(self.csi), has(self.ephemeral),"
            " has(self.configMap), has(self.secret)].filter(given, given).size() == 1",
            "exactly one of persistentVolumeClaim, emptyDir, csi, ephemeral, configMap, secret must be given",
        )
    )

    name: VolumeName
    """What `volumeMounts` calls it."""
    persistent_volume_claim: ClaimVolume | None = None
    """A claim that is there."""
    empty_dir: EmptyDirVolume | None = None
    """An empty folder."""
    csi: CsiVolume | None = None
    """A volume of a CSI driver."""
    ephemeral: EphemeralVolume | None = None
    """A claim of the pod's own."""
    config_map: ObjectReference | None = None
    """The keys of a ConfigMap as files."""
    secret: SecretVolume | None = None
    """The keys of a Secret as files."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        check_one(self, "persistent_volume_claim", "empty_dir", "csi", "ephemeral", "config_map", "secret")
        return self


class VolumeMount(Spec):
    """Where the program finds a volume."""

    name: VolumeName
    """The volume, of this document or of the installation."""
    mount_path: MountPath
    """The folder, below one that the installation allows (`runs.allow.mountPaths`)."""
    sub_path: Annotated[str, Field(pattern=SUB_PATH_PATTERN, max_length=512)] | None = None
    """The part of the volume that is mounted; absent means all."""
    read_only: bool = False
    """Whether it is only read."""
