"""Carrying out a Plan: the status first, then objects, then Events; what is so already is not written again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime

from kindling_api.base import API_VERSION, key_of
from kindling_operator.cache import CHILDREN, ObjectCache
from kindling_operator.children import key_of_object
from kindling_operator.cluster import FIELD_MANAGER, STATUS_FIELD_MANAGER, Cluster, ClusterError
from kindling_operator.events import Recorder
from kindling_operator.labels import UID, label
from kindling_operator.metrics import STATUS_WRITES
from kindling_operator.owners import is_owned, owners
from kindling_operator.world import NAMESPACE_GOES, Object, ObjectKey, Plan

REPAIR_SECONDS = 600.0
"""After which an object is applied again although it has not changed here: somebody may have changed it there."""

MOST_APPLIED = 20_000

FAST_FIELDS = ("progress", "progressTime", "checkpoint")
"""The parts of a status that change all the time; no decision follows from having written them."""

CHILD_KINDS = frozenset(kind for _, kind in CHILDREN)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Settled:
    """An object as it was last written."""

    owner: str
    """UID of the document that it was written for."""
    digest: str
    """Of what was applied; empty where it was created, once."""
    when: float
    """On the monotonic clock."""


class Applier:
    """Makes the cluster what Plans say."""

    def __init__(
        self, cluster: Cluster, cache: ObjectCache, recorder: Recorder, refused: MutableMapping[str, Object]
    ) -> None:
        """`refused` gets, by the document's UID, the last write that the API server refused, as an Event."""
        self._cluster = cluster
        self._cache = cache
        self._recorder = recorder
        self._refused = refused
        self._applied: dict[ObjectKey, _Settled] = {}

    async def apply(self, resource: Object, plan: Plan) -> bool:
        """Carry the plan out, in its order; a crash between any two writes is made good by the next plan.

        Returns:
            Whether the document has changed in a way that another decision may follow from.

        Raises:
            ClusterError: a write was refused, or not answered; what was written before it stays.
        """
        try:
            current = await self._write_status(resource, plan.status)
        except ClusterError as error:
            if error.status != 403 or not _lets_go(resource, plan):
                raise
            log.warning("the status is not written, and does not hold up the rest: %s", error)
            current = resource
        try:
            beside = [item for item in plan.create if item["kind"] not in CHILD_KINDS]
            await asyncio.gather(
                *(self._apply(resource, item) for item in plan.apply),
                *(self._create(resource, item) for item in beside),
            )
            for item in plan.create:  # the Job last: its pods need all the others
                if item["kind"] in CHILD_KINDS:
                    await self._create(resource, item)
            self._refused.pop(resource["metadata"]["uid"], None)
        except ClusterError as error:
            if 400 <= error.status < 500 and error.status != 429:
                self._remember(resource, plan, error)
            raise
        for key, patch in plan.change:
            await self._change(current, key, patch)
        for key in plan.delete:
            await self._delete(resource, key)
        for event in plan.events:
            self._recorder.record(resource, event)
        return _decisive(current) != _decisive(resource)

    async def _write_status(self, resource: Object, status: Object) -> Object:
        """Write the status where it differs, unless somebody else has changed the document meanwhile.

        Returns:
            The document as it is now.
        """
        if status == (resource.get("status") or {}):
            return resource
        metadata = {name: resource["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")}
        body = {"apiVersion": resource["apiVersion"], "kind": resource["kind"], "metadata": metadata, "status": status}
        try:
            written = await self._cluster.apply(body, manager=STATUS_FIELD_MANAGER, subresource="status")
        except ClusterError as error:
            await self._refresh(key_of_object(resource), error)
            raise
        STATUS_WRITES.inc()
        self._cache.learned(written)
        return written

    async def _refresh(self, key: ObjectKey, error: ClusterError) -> None:
        """Read an object anew, past the watch, where an error says that it is not what it was."""
        if error.status not in (404, 409):
            return
        version = self._cache.version(key)
        found = await self._cluster.get(key)
        if found is not None:
            self._cache.learned(found)
        else:
            self._cache.forget(key, version)

    async def _apply(self, resource: Object, item: Object) -> None:
        key, digest, owner = key_of_object(item), key_of(item), resource["metadata"]["uid"]
        known = self._applied.get(key)
        if known and (known.owner, known.digest) == (owner, digest) and time.monotonic() - known.when < REPAIR_SECONDS:
            return
        if known is None or known.owner != owner:
            _check_owner(resource, item, await self._cluster.get(key))
        await self._cluster.apply(item, manager=FIELD_MANAGER)
        self._remember_applied(key, owner, digest)

    async def _create(self, resource: Object, item: Object) -> None:
        key, owner = key_of_object(item), resource["metadata"]["uid"]
        known = self._applied.get(key)
        if known and known.owner == owner and key.kind not in CHILD_KINDS:
            return
        try:
            made: Object | None = await self._cluster.create(item, manager=FIELD_MANAGER)
        except ClusterError as error:
            if error.reason != "AlreadyExists":
                raise
            made = await self._cluster.get(key)
            _check_owner(resource, item, made)
        if made is not None and key.kind in CHILD_KINDS:
            self._cache.learned(made)
        self._remember_applied(key, owner, "")

    async def _change(self, current: Object, key: ObjectKey, patch: Object) -> None:
        if _is(current, key) and "resourceVersion" in patch.get("metadata", {}):
            version = current["metadata"]["resourceVersion"]  # the status may have been written since the decision
            patch = {**patch, "metadata": {**patch["metadata"], "resourceVersion": version}}
        try:
            changed = await self._cluster.merge(key, patch, manager=FIELD_MANAGER)
        except ClusterError as error:
            await self._refresh(key, error)
            if error.status != 404:
                raise
            return
        if key.kind in CHILD_KINDS or key.api_version == API_VERSION:
            self._cache.learned(changed)

    async def _delete(self, resource: Object, key: ObjectKey) -> None:
        """Delete the document, or what is its own; what has the name and is somebody else's stays."""
        self._applied.pop(key, None)
        there = resource if _is(resource, key) else await self._cluster.get(key)
        if there is None:
            return
        if there is not resource and not _is_its(there, resource):
            log.warning("%s %s/%s stays: it is not this document's", key.kind, key.namespace, key.name)
            return
        await self._cluster.delete(key, uid=there["metadata"]["uid"])

    def _remember_applied(self, key: ObjectKey, owner: str, digest: str) -> None:
        if len(self._applied) >= MOST_APPLIED:
            self._applied.clear()
        self._applied[key] = _Settled(owner, digest, time.monotonic())

    def _remember(self, resource: Object, plan: Plan, error: ClusterError) -> None:
        """Keep a refusal for the next look, where it counts like the Warning event of a controller."""
        about = (*plan.create, *plan.apply)[0]
        self._refused[resource["metadata"]["uid"]] = {
            "apiVersion": "v1",
            "kind": "Event",
            "type": "Warning",
            "reason": NAMESPACE_GOES if error.reason == NAMESPACE_GOES else "FailedCreate",
            "message": str(error),
            "lastTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "involvedObject": {"kind": about["kind"], "name": about["metadata"]["name"]},
        }


def _is_its(there: Object, resource: Object) -> bool:
    """Whether an object is the document's; one without owner, as the clean-up Job is, says in a label whose it is."""
    return is_owned(there, resource) or (not owners(there) and label(there, UID) == resource["metadata"]["uid"])


def _check_owner(resource: Object, item: Object, there: Object | None) -> None:
    """Refuse to touch an object of somebody else's that has the name of ours, and to adopt one without owner."""
    if there is None:
        return
    if not _is_its(there, resource) or (owners(item) and not owners(there)):
        name = f"{there['kind']} {there['metadata']['name']}"
        remedy = f"delete it, or give this {resource['kind']} another name"
        raise ClusterError(409, "NameTaken", f"{name} is there already and belongs to something else; {remedy}")


def _lets_go(resource: Object, plan: Plan) -> bool:
    """Whether the plan takes a finalizer away: what else it says must not keep a document that is to go."""
    before = resource["metadata"].get("finalizers") or ()
    return any(len(patch["metadata"]["finalizers"]) < len(before) for _, patch in plan.change)


def _is(resource: Object, key: ObjectKey) -> bool:
    return key == key_of_object(resource)


def _decisive(resource: Object) -> Object:
    """The part of a document from which another decision may follow."""
    status = resource.get("status") or {}
    return {name: value for name, value in status.items() if name not in FAST_FIELDS}
