"""What a document's pod template asks for beyond what the installation allows: pure, and asked before each rendering,
since a template may change in the course of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from kindling_api.errors import Explanation, explain
from kindling_api.v1alpha1.pod_template import PodTemplate
from kindling_api.v1alpha1.resources import RunControls
from kindling_operator.labels import is_carried
from kindling_operator.reserved import reserved
from kindling_operator.settings import Settings

_FIELD: Final = "spec.podTemplate"
_MOST_LISTED: Final = 12

_NAMES: Final = {
    "priority_class_name": ("priorityClassName", "priority_classes", "priorityClasses"),
    "scheduler_name": ("schedulerName", "schedulers", "schedulers"),
    "service_account_name": ("serviceAccountName", "service_accounts", "serviceAccounts"),
    "runtime_class_name": ("runtimeClassName", "runtime_classes", "runtimeClasses"),
}
"""Fields that hold a name: as a document spells them, and the list of the allowed ones in Python and in the chart."""


def refusals(spec: RunControls, settings: Settings) -> Iterator[Explanation]:
    """One sentence for each thing that the pods of a document may not have."""
    yield from _priority(spec, settings)
    template = spec.pod_template
    if template is None:
        return
    for field, found, allowed in reserved(template):
        yield explain(f"{_FIELD}.{field}", found=found, allowed=allowed, remedy="leave it out, or name it otherwise")
    yield from _names(template, settings)
    yield from _metadata(template, settings)
    yield from _environment(template, settings)
    yield from _volumes(template, settings)
    yield from _mounts(template, settings)
    gpu = getattr(getattr(spec, "resources", None), "gpu", None)
    if gpu in template.extended_resources:
        allowed, remedy = "devices beside those of spec.resources.gpu", "ask for it in spec.resources alone"
        yield explain(f"{_FIELD}.extendedResources", found=gpu, allowed=allowed, remedy=remedy)


def pod_priority(spec: RunControls) -> str | None:
    """The PriorityClass that `spec.priority` names; in a queue it is one of Kueue's, which is no concern of pods."""
    return spec.priority if spec.queue is None else None


def _priority(spec: RunControls, settings: Settings) -> Iterator[Explanation]:
    asked, allowed = pod_priority(spec), settings.allow.priority_classes
    if asked is None:
        return
    if asked not in (*allowed, settings.pod_template.priority_class_name):
        yield _refused("spec.priority", asked, allowed, "runs.allow.priorityClasses")
    if spec.pod_template is not None and spec.pod_template.priority_class_name is not None:
        found, remedy = spec.pod_template.priority_class_name, "leave one of them out"
        yield explain(f"{_FIELD}.priorityClassName", found=found, allowed="nothing beside spec.priority", remedy=remedy)


def _names(template: PodTemplate, settings: Settings) -> Iterator[Explanation]:
    for field, (spelt, names, value) in _NAMES.items():
        asked, allowed = getattr(template, field), getattr(settings.allow, names)
        if asked is not None and asked not in (*allowed, getattr(settings.pod_template, field)):
            yield _refused(f"{_FIELD}.{spelt}", asked, allowed, f"runs.allow.{value}")
    if template.host_network and not (settings.allow.host_network or settings.pod_template.host_network):
        remedy = "leave it out, or ask the installation's administrator to set runs.allow.hostNetwork of the chart"
        yield explain(f"{_FIELD}.hostNetwork", found="true", allowed="false in this installation", remedy=remedy)


def _metadata(template: PodTemplate, settings: Settings) -> Iterator[Explanation]:
    labels, annotations = settings.pods.carried_labels, settings.pods.carried_annotations
    for part, allowed, value in (
        ("labels", labels, "carriedLabels"),
        ("annotations", annotations, "carriedAnnotations"),
    ):
        for key in getattr(template.metadata, part):
            if not is_carried(key, allowed):
                yield _refused(f"{_FIELD}.metadata.{part}", key, allowed, f"runs.pods.{value}")


def _environment(template: PodTemplate, settings: Settings) -> Iterator[Explanation]:
    for number, variable in enumerate(template.env):
        if variable.name not in settings.allow.env:
            yield _refused(f"{_FIELD}.env[{number}].name", variable.name, settings.allow.env, "runs.allow.env")
    for number, source in enumerate(template.env_from):
        field, reference = (
            ("secretRef", source.secret_ref) if source.secret_ref else ("configMapRef", source.config_map_ref)
        )
        if reference is not None and reference.name not in settings.allow.env_from:
            place = f"envFrom[{number}].{field}.name"
            yield _refused(f"{_FIELD}.{place}", reference.name, settings.allow.env_from, "runs.allow.envFrom")


def _volumes(template: PodTemplate, settings: Settings) -> Iterator[Explanation]:
    """A volume of the installation's stays what it is, wherever it is mounted."""
    theirs = {volume.name for volume in settings.pod_template.volumes}
    for number, volume in enumerate(template.volumes):
        if volume.name in theirs:
            allowed, remedy = "names that no volume of the installation has", "name it otherwise, or mount that one"
            yield explain(f"{_FIELD}.volumes[{number}].name", found=volume.name, allowed=allowed, remedy=remedy)
        if volume.csi is not None and volume.csi.driver not in settings.allow.csi_drivers:
            place = f"volumes[{number}].csi.driver"
            yield _refused(f"{_FIELD}.{place}", volume.csi.driver, settings.allow.csi_drivers, "runs.allow.csiDrivers")


def _mounts(template: PodTemplate, settings: Settings) -> Iterator[Explanation]:
    volumes = [volume.name for volume in (*template.volumes, *settings.pod_template.volumes)]
    taken = {mount.mount_path for mount in settings.pod_template.volume_mounts}
    for number, mount in enumerate(template.volume_mounts):
        place = f"volumeMounts[{number}]"
        if mount.name not in volumes:
            remedy = "add the volume, or correct the name"
            yield explain(f"{_FIELD}.{place}.name", found=mount.name, allowed=_listed(volumes), remedy=remedy)
        if not mount.mount_path.startswith(settings.allow.mount_paths):
            below = [f"folders below {folder}" for folder in settings.allow.mount_paths]
            yield _refused(f"{_FIELD}.{place}.mountPath", mount.mount_path, below, "runs.allow.mountPaths")
        elif any(nested(mount.mount_path, path) for path in taken):
            allowed, remedy = "folders in which the installation has mounted nothing", "choose another folder"
            found = mount.mount_path
            yield explain(f"{_FIELD}.{place}.mountPath", found=found, allowed=allowed, remedy=remedy)


def nested(path: str, other: str) -> bool:
    """Whether one of two folders is the other, or within it."""
    return f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/")


def _refused(field: str, found: str, allowed: Sequence[str], value: str) -> Explanation:
    remedy = f"leave it out, or ask the installation's administrator to add it to {value} of the chart"
    return explain(field, found=found, allowed=_listed(allowed), remedy=remedy)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_LISTED]) + (", …" if len(names) > _MOST_LISTED else "")
    return shown or "none in this installation"
