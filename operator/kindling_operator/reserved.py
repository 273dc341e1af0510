"""What of a pod is the product's own, and no template's: names of variables, volumes and labels, and folders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kindling_api.base import GROUP
from kindling_api.v1alpha1.pod_template import PodTemplate

LABELS: Final = (f"{GROUP}/", "kueue.x-k8s.io/queue-name", "app.kubernetes.io/managed-by")
"""Keys, or what they begin with, by which objects are found, or queued."""

VARIABLES: Final = frozenset(
    {
        "HF_ENDPOINT", "HF_TOKEN_PATH", "HOME", "JOB_COMPLETION_INDEX", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR",
        "MASTER_PORT", "RANK", "WORLD_SIZE",
        "AWS_CA_BUNDLE", "SSL_CERT_FILE",
    }
)  # fmt: skip
VARIABLE_PREFIXES: Final = ("KINDLING_", "RAY_", "TORCHELASTIC_")

VOLUMES: Final = frozenset(
    {"ca-bundle", "credentials", "hugging-face", "run", "shared-memory", "temporary", "tracking"}
)
VOLUME_PREFIXES: Final = ("source-", "ray-", "shared-mem")
"""Those of a build's sources, and those that KubeRay adds."""

FOLDERS: Final = (
    "/dev", "/etc/kindling", "/etc/kindling-ca-bundle", "/etc/kindling-credentials", "/etc/kindling-hugging-face",
    "/etc/kindling-source-credentials", "/etc/kindling-tracking", "/opt/kindling", "/proc", "/sys", "/tmp",
    "/var/run/secrets",
)  # fmt: skip
"""Nothing is mounted there, above them or below, but below /tmp."""


def reserved(template: PodTemplate) -> Iterator[tuple[str, str, str]]:
    """What a template would take of the product's: each field, what was found there, and what is allowed."""
    for part in ("labels", "annotations"):
        for key in getattr(template.metadata, part):
            if is_reserved_label(key):
                yield f"metadata.{part}", key, f"keys that do not begin with {', '.join(LABELS)}"
    for number, variable in enumerate(template.env):
        if variable.name in VARIABLES or variable.name.startswith(VARIABLE_PREFIXES):
            yield f"env[{number}].name", variable.name, "variables that Kindling does not set itself"
    for number, volume in enumerate(template.volumes):
        if volume.name in VOLUMES or volume.name.startswith(VOLUME_PREFIXES):
            yield f"volumes[{number}].name", volume.name, "another name than those of Kindling's own volumes"
    for number, mount in enumerate(template.volume_mounts):
        if is_reserved_folder(mount.mount_path):
            yield f"volumeMounts[{number}].mountPath", mount.mount_path, f"folders outside of {', '.join(FOLDERS)}"
        if mount.name in VOLUMES or mount.name.startswith(VOLUME_PREFIXES):
            yield f"volumeMounts[{number}].name", mount.name, "volumes of a template, and none of Kindling's own"


def is_reserved_label(key: str) -> bool:
    """Whether a label or annotation is the product's to set."""
    return key.startswith(LABELS)


def is_reserved_folder(path: str) -> bool:
    """Whether a volume at `path` would hide a folder of the product's, or lie in one."""
    for folder in FOLDERS:
        above, below = f"{folder}/".startswith(f"{path}/"), path.startswith(f"{folder}/")
        if above or (below and folder != "/tmp"):
            return True
    return False
