"""What is seen of one document and its children, and what is to be done about it: plain data, no effects.

`observe` makes a World, `decide` turns it into a Plan, and `enact` carries the Plan out. Objects of Kubernetes stay
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
from kindling_operator.settings import Settings

Object = dict[str, Any]
"""A Kubernetes object, as the API server gives it or takes it."""


@dataclass(frozen=True)
class Referred:
    """A document that another one refers to."""

    phase: str
    """Its `status.phase`, "Pending" where it has no status yet."""
    finished: Finished | None = None
    """Its product, once it has succeeded."""
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
    """The same, parsed; None where it is refused."""
    refusal: str = ""
    """Why it is refused, as a sentence for the user."""
    references: Mapping[Reference, Referred] = field(default_factory=dict)
    """The documents it refers to that exist."""
    jobs: tuple[Object, ...] = ()
    """Its Jobs, of all attempts."""
    ray_jobs: tuple[Object, ...] = ()
    """Its RayJobs, of all attempts."""
    cleanup: Object | None = None
    """The Job that deletes its data from the store, once it is being deleted."""
    deployment: Object | None = None
    """What serves its model."""
    pods: tuple[Object, ...] = ()
    """Its pods, of all attempts, those of Ray included."""
    warnings: tuple[Object, ...] = ()
    """Events of type Warning about its Jobs, RayJobs and pods: a quota used up, a pod that cannot be scheduled."""
    progress: Progress | None = None
    """What the current attempt's process said last over the network; its last word is the pod's termination message."""
    progress_at: datetime | None = None
    """When it said that."""
    ray_installed: bool = True
    """Whether the cluster knows RayJobs."""


@dataclass(frozen=True)
class ObjectKey:
    """An object by its name."""

    api_version: str
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Note:
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
    notes: tuple[Note, ...] = ()
    """Events."""
    again_after: float | None = None
    """Seconds after which to look again, whether or not anything changed; None: at the next resync."""
