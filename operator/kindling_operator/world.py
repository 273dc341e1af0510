"""What is seen of one document and its children, and what is to be done about it: plain data, no effects.

`observe` makes a World, `decide` turns it into a Plan, and `apply` carries the Plan out. Objects of Kubernetes stay
what they are on the wire, dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from kindling_api.documents import Document
from kindling_api.references import Reference
from kindling_api.resolve import Finished
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.settings import Settings

Object = dict[str, Any]
"""A Kubernetes object, as the API server gives it or takes it."""

NAMESPACE_GOES = "NamespaceTerminating"
"""Why nothing new is let into a namespace that is being deleted, in the API server's word."""


@dataclass(frozen=True)
class Referred:
    """A document that another one refers to."""

    phase: str
    """Its `status.phase`, "Pending" where it has no status yet."""
    finished: Finished | None = None
    """The product of the document referred to, once it has succeeded."""
    message: str = ""
    """Where it failed: why."""


@dataclass(frozen=True)
class World:
    """All that a decision about one document depends on.

    Children that are missing here count as deleted: whoever makes a World has seen all children first.
    """

    now: datetime
    """With time zone UTC."""
    settings: Settings
    resource: Object
    """The custom resource as it is on the API server, with its status."""
    document: Document | None
    """The document, parsed; None where it is refused."""
    refusal: str = ""
    """Why it is refused, as a sentence for the user."""
    references: Mapping[Reference, Referred] = field(default_factory=dict)
    """The documents it refers to that exist."""
    jobs: tuple[Object, ...] = ()
    """The document's Jobs, of all attempts."""
    ray_jobs: tuple[Object, ...] = ()
    """The document's RayJobs, of all attempts."""
    cleanup: Object | None = None
    """The Job that deletes its data from the store, once it is being deleted."""
    deployments: tuple[Object, ...] = ()
    """What serves its model; one of an earlier version of the operator may be among them."""
    pods: tuple[Object, ...] = ()
    """The document's pods, of all attempts, those of Ray included."""
    pods_beside: tuple[Object, ...] = ()
    """The pods that belong to no attempt: those that serve its model, and that of the clean-up Job."""
    written: StorageSpec | None = None
    """The storage in the run file of the newest attempt; looked for only where the status, which an earlier version
    wrote, names none."""
    warnings: tuple[Object, ...] = ()
    """Events of type Warning about its Jobs, RayJobs and pods: a quota used up, a pod that cannot be scheduled."""
    progress: Progress | None = None
    """What the current attempt's process said last over the network; its last word is the pod's termination message."""
    progress_at: datetime | None = None
    """When it said that."""
    unchanged_seconds: float = 0.0
    """For how long it has said that and nothing else; `now` may jump, this does not."""
    ray_installed: bool = True
    """Whether the cluster knows RayJobs."""
    kueue_installed: bool = True
    """Whether the cluster has Kueue; looked for only where the document asks for a queue."""
    workload: Object | None = None
    """What Kueue made of the newest attempt's Job or RayJob, seen just now; None where there is none, or where it was
    seen a moment ago and the Job is admitted."""


@dataclass(frozen=True)
class ObjectKey:
    """An object by its name."""

    api_version: str
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True)
class EventRecord:
    """What is to be told as a Kubernetes Event about the document."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this order: status, apply, create, change, delete, notes.

    An attempt's number is in the status before anything of that attempt is made, so `decide` makes children only of the
    attempt that it saw in the status; raising the number is a Plan of its own, followed by another reconcile.
    """

    status: Object
    """The whole status of the document."""
    apply: tuple[Object, ...] = ()
    """Objects for server-side apply: Services, NetworkPolicies, and what serves a model."""
    create: tuple[Object, ...] = ()
    """Created once: the run file's ConfigMap, then its Job or RayJob; one that is there is left as it is."""
    change: tuple[tuple[ObjectKey, Object], ...] = ()
    """Merge patches of objects that are there: the document's finalizers."""
    delete: tuple[ObjectKey, ...] = ()
    """Objects that go, with what they own."""
    events: tuple[EventRecord, ...] = ()
    """Events."""
    requeue_after: float | None = None
    """Seconds after which to decide again, whether or not anything changed; None: at the next resync."""
