"""Pod templates of the installation and of a document, laid over the pods that are written down in `pods.py`.

Nothing of what a pod is gets lost by it: lists grow, and nothing of the product's own has a name that a template may
use.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.pod_affinity import Affinity
from kindling_api.v1alpha1.pod_template import PodMetadata, PodTemplate
from kindling_api.v1alpha1.resources import RunControls
from kindling_operator.allowances import pod_priority, refusals
from kindling_operator.settings import Settings
from kindling_operator.world import Object

USER = 65532
"""The unprivileged user of the images, and the group that volumes of templates are given to."""

FOR_HELPERS = ("metadata", "env", "env_from", "priority_class_name", "service_account_name", "image_pull_secrets")
"""The fields that hold for pods which only report, serve or clean up; the others are for those that do the work."""


def template_of(settings: Settings, spec: RunControls) -> PodTemplate:
    """The installation's template with the document's over it.

    Raises:
        SpecError: the document asks for what the installation does not allow.
    """
    if wrong := list(refusals(spec, settings)):
        raise SpecError("\n".join(wrong) if len(wrong) > 1 else wrong[0])
    template = merged(settings.pod_template, spec.pod_template or PodTemplate())
    return template.model_copy(update={"priority_class_name": pod_priority(spec) or template.priority_class_name})


def merged(under: PodTemplate, over: PodTemplate) -> PodTemplate:
    """Two templates as one: items by their keys (variables by name, mounts by folder, labels, annotations and devices),
    volumes and sources of variables of both, affinity by its three parts; of all else what `over` says, where it says
    something."""
    both = (under, over)
    metadata = PodMetadata(
        labels=under.metadata.labels | over.metadata.labels,
        annotations=under.metadata.annotations | over.metadata.annotations,
    )
    affinity = {name: getattr(over.affinity, name) or getattr(under.affinity, name) for name in Affinity.model_fields}
    single = (
        "priority_class_name", "scheduler_name", "service_account_name", "runtime_class_name", "host_network",
        "shared_memory", "ephemeral_storage",
    )  # fmt: skip
    said = {name: getattr(over, name) for name in single if getattr(over, name) is not None}
    return under.model_copy(
        update={
            **said,
            "metadata": metadata,
            "env": tuple({one.name: one for template in both for one in template.env}.values()),
            "env_from": under.env_from + over.env_from,
            "volumes": tuple({one.name: one for template in both for one in template.volumes}.values()),
            "volume_mounts": tuple({one.mount_path: one for each in both for one in each.volume_mounts}.values()),
            "affinity": Affinity.model_construct(**affinity),
            "topology_spread_constraints": over.topology_spread_constraints or under.topology_spread_constraints,
            "image_pull_secrets": tuple({one.name: one for each in both for one in each.image_pull_secrets}.values()),
            "extended_resources": under.extended_resources | over.extended_resources,
        }
    )


def for_helpers(template: PodTemplate) -> PodTemplate:
    """What of a template holds for pods that do not do the document's work."""
    return PodTemplate.model_construct(**{name: getattr(template, name) for name in FOR_HELPERS})


def with_template(pod: Object, template: PodTemplate, peers: Mapping[str, str]) -> Object:
    """`pod`, the template of a Pod, with what `template` says besides.

    Args:
        peers: the labels of the pods that a term about pods means where it names none.
    """
    pod = copy.deepcopy(pod)
    spec = pod["spec"]
    (container,) = spec["containers"]
    for part, items in template.metadata.document().items():
        if items:
            pod["metadata"][part] = {**items, **pod["metadata"].get(part, {})}
    _place(spec, template, peers)
    _mount(spec, container, template)
    container["env"] += [_variable(one.document()) for one in template.env]
    if template.env_from:
        container["envFrom"] = [one.document() for one in template.env_from]
    amounts = {name: str(count) for name, count in template.extended_resources.items()}
    if template.ephemeral_storage is not None:
        amounts["ephemeral-storage"] = template.ephemeral_storage
    for side in container["resources"].values():
        side.update(amounts)
    return pod


def _place(spec: Object, template: PodTemplate, peers: Mapping[str, str]) -> None:
    """Where it runs, as whom, and on which network."""
    affinity = {**spec.get("affinity", {}), **_about(template.affinity.document(), peers)}
    constraints = _about([one.document() for one in template.topology_spread_constraints], peers)
    pull = [*spec.get("imagePullSecrets", ()), *(one.document() for one in template.image_pull_secrets)]
    host = {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if template.host_network else {}
    fields = {
        "affinity": affinity,
        "topologySpreadConstraints": constraints,
        "priorityClassName": template.priority_class_name,
        "schedulerName": template.scheduler_name,
        "serviceAccountName": template.service_account_name,
        "runtimeClassName": template.runtime_class_name,
        "imagePullSecrets": _each_once(pull),
        **host,
    }
    spec.update({name: value for name, value in fields.items() if value})


def _mount(spec: Object, container: Object, template: PodTemplate) -> None:
    """Volumes, which belong to the pod's group, or the program could not write to most of them."""
    spec["volumes"] += [one.document() for one in template.volumes]
    container["volumeMounts"] += [one.document() for one in template.volume_mounts]
    if template.volumes:
        spec["securityContext"] |= {"fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch"}
    if template.shared_memory is not None:
        (shared,) = (volume for volume in spec["volumes"] if volume["name"] == "shared-memory")
        shared["emptyDir"]["sizeLimit"] = template.shared_memory


def _variable(variable: Object) -> Object:
    """As it stands: Kubernetes would put the value of another variable, perhaps a key, in for $(NAME)."""
    if "value" in variable:
        variable["value"] = variable["value"].replace("$", "$$")
    return variable


def _about(value: Any, peers: Mapping[str, str]) -> Any:
    """Terms about pods with a selector, where they had none, and without lists of nothing."""
    if isinstance(value, list):
        return [_about(item, peers) for item in value]
    if not isinstance(value, dict):
        return value
    result = {name: _about(item, peers) for name, item in value.items() if item != []}
    return result if "topologyKey" not in result else {"labelSelector": {"matchLabels": dict(peers)}, **result}


def _each_once(references: Sequence[Object]) -> list[Object]:
    return list({one["name"]: one for one in references}.values())
