"""The labels by which objects are known to belong to a document, and to which part of its work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from kindling_api.base import GROUP, Kind
from kindling_operator.reserved import is_reserved_label
from kindling_operator.settings import Pods
from kindling_operator.world import Object

KIND: Final = f"{GROUP}/kind"
NAME: Final = f"{GROUP}/name"
UID: Final = f"{GROUP}/uid"
"""The document's UID: an earlier document may have had the same name."""
ATTEMPT: Final = f"{GROUP}/attempt"
COMPONENT: Final = f"{GROUP}/component"
"""What belongs to no attempt, as the pods that serve a model."""
QUEUE: Final = "kueue.x-k8s.io/queue-name"
"""Kueue's: the queue that admits a Job."""

PRIORITY: Final = "kueue.x-k8s.io/priority-class"
"""Kueue's: the WorkloadPriorityClass by which it is admitted."""
TOPOLOGY: Final = {
    wish: f"kueue.x-k8s.io/podset-{wish}-topology" for wish in ("required", "preferred", "unconstrained")
}
"""Annotations of pods, of which Kueue takes one, by the fields of `spec.topology`. Source: Kueue 0.17,
apis/kueue/v1beta1/topology_types.go."""
JOB_UID: Final = "kueue.x-k8s.io/job-uid"
"""Kueue's, on a Workload: the UID of the Job or RayJob that it stands for."""

MANAGED: Final = {"app.kubernetes.io/managed-by": "kindling"}
"""The label of everything that the operator makes."""


def label(thing: Object, name: str) -> str | None:
    """The value of an object's label; None where it has no such label."""
    value = (thing["metadata"].get("labels") or {}).get(name)
    return None if value is None else str(value)


def run_labels(kind: Kind, name: str, uid: str | None) -> dict[str, str]:
    """The labels by which all children of one document are found, of whichever attempt; on a cluster with its UID."""
    return {**MANAGED, KIND: kind, NAME: name} | ({UID: uid} if uid else {})


def pod_metadata(labels: Mapping[str, str], resource: Object, settings: Pods) -> Object:
    """The metadata of a document's pods: our `labels`, and what of the document's own the installation lets through."""
    own = resource["metadata"]
    annotations = _allowed(own.get("annotations") or {}, settings.carried_annotations)
    beside = _allowed(own.get("labels") or {}, settings.carried_labels)
    return {"labels": {**beside, **labels}, **({"annotations": annotations} if annotations else {})}


def _allowed(items: dict[str, str], allowed: Sequence[str]) -> dict[str, str]:
    return {key: value for key, value in items.items() if is_carried(key, allowed)}


def is_carried(key: str, allowed: Sequence[str]) -> bool:
    """Whether pods may have a label or annotation of a document's: `allowed` has its key, or what that begins with, up
    to a slash; those that the operator sets itself they may not."""
    prefixes = tuple(each for each in allowed if each.endswith("/"))
    return (key in allowed or key.startswith(prefixes)) and not is_reserved_label(key)


def attempt_of(thing: Object) -> int | None:
    """The attempt that an object belongs to; None for objects that belong to none."""
    text = label(thing, ATTEMPT) or ""
    return int(text) if text.isdecimal() and len(text) < 10 else None
