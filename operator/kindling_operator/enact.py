"""Carrying out a Plan: the status first, then objects, then Events; what is so already is not written again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from datetime import UTC, datetime

from kindling_api.base import API_VERSION, key_of
from kindling_api.references import Reference
from kindling_operator.cache import CHILDREN, Cache, run_of
from kindling_operator.children import key_of_object
from kindling_operator.cluster import Cluster, ClusterError
from kindling_operator.events import Recorder
from kindling_operator.metrics import STATUS_WRITES
from kindling_operator.render.cleanup import UID_LABEL
from kindling_operator.world import Object, ObjectKey, Plan

MANAGER = "kindling"
STATUS_MANAGER = "kindling-status"

REPAIR_SECONDS = 600.0
"""After which an object is applied again although it has not changed here: somebody may have changed it there."""

MOST_SETTLED = 20_000

FAST_FIELDS = ("progress", "progressTime", "checkpoint")
"""The parts of a status that change all the time; no decision follows from having written them."""

CHILD_KINDS = frozenset(kind for _, kind in CHILDREN)


class Enactor:
    """Makes the cluster what Plans say."""

    def __init__(
        self, cluster: Cluster, cache: Cache, recorder: Recorder, refused: MutableMapping[Reference, Object]
    ) -> None:
        """`refused` gets, for each document, the last write that the API server refused, in the form of an Event."""
        self._cluster = cluster
        self._cache = cache
        self._recorder = recorder
        self._refused = refused
        self._settled: dict[ObjectKey, tuple[str, float]] = {}

    async def enact(self, resource: Object, plan: Plan) -> bool:
        """Carry the plan out, in its order; a crash between any two writes is made good by the next plan.

        Returns:
            Whether the document has changed in a way that another decision may follow from.

        Raises:
            ClusterError: a write was refused, or not answered; what was written before it stays.
        """
        current = await self._write_status(resource, plan.status)
        try:
            beside = [item for item in plan.create if item["kind"] not in CHILD_KINDS]
            await asyncio.gather(
                *(self._apply(resource, item) for item in plan.apply),
                *(self._create(resource, item) for item in beside),
            )
            for item in plan.create:  # the Job last: its pods need all the others
                if item["kind"] in CHILD_KINDS:
                    await self._create(resource, item)
            self._refused.pop(run_of(resource), None)
        except ClusterError as error:
            if 400 <= error.status < 500 and error.status != 429:
                self._remember(resource, plan, error)
            raise
        for key, patch in plan.change:
            await self._change(current, key, patch)
        for key in plan.delete:
            await self._cluster.delete(key, uid=resource["metadata"]["uid"] if _is(resource, key) else None)
            self._settled.pop(key, None)
        for note in plan.notes:
            self._recorder.tell(resource, note)
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
            written = await self._cluster.apply(body, manager=STATUS_MANAGER, subresource="status")
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
        found = await self._cluster.get(key)
        if found is not None:
            self._cache.learned(found)
        elif key in self._cache.keys(key.api_version, key.kind):
            self._cache.forget(key)

    async def _apply(self, resource: Object, item: Object) -> None:
        key, digest = key_of_object(item), key_of(item)
        known, when = self._settled.get(key, ("", 0.0))
        if known == digest and time.monotonic() - when < REPAIR_SECONDS:
            return
        if not known:
            _check_owner(resource, await self._cluster.get(key))
        await self._cluster.apply(item, manager=MANAGER)
        self._settle(key, digest)

    async def _create(self, resource: Object, item: Object) -> None:
        key, owner = key_of_object(item), resource["metadata"]["uid"]
        if self._settled.get(key, ("", 0.0))[0] == owner and key.kind not in CHILD_KINDS:
            return
        try:
            made: Object | None = await self._cluster.create(item, manager=MANAGER)
        except ClusterError as error:
            if error.reason != "AlreadyExists":
                raise
            made = await self._cluster.get(key)
            _check_owner(resource, made)
        if made is not None and key.kind in CHILD_KINDS:
            self._cache.learned(made)
        self._settle(key, owner)

    async def _change(self, current: Object, key: ObjectKey, patch: Object) -> None:
        if _is(current, key) and "resourceVersion" in patch.get("metadata", {}):
            version = current["metadata"]["resourceVersion"]  # the status may have been written since the decision
            patch = {**patch, "metadata": {**patch["metadata"], "resourceVersion": version}}
        try:
            changed = await self._cluster.merge(key, patch, manager=MANAGER)
        except ClusterError as error:
            await self._refresh(key, error)
            if error.status != 404:
                raise
            return
        if key.kind in CHILD_KINDS or key.api_version == API_VERSION:
            self._cache.learned(changed)

    def _settle(self, key: ObjectKey, what: str) -> None:
        if len(self._settled) >= MOST_SETTLED:
            self._settled.clear()
        self._settled[key] = (what, time.monotonic())

    def _remember(self, resource: Object, plan: Plan, error: ClusterError) -> None:
        """Keep a refusal for the next look, where it counts like the Warning event of a controller."""
        about = (*plan.create, *plan.apply)[0]
        self._refused[run_of(resource)] = {
            "apiVersion": "v1",
            "kind": "Event",
            "type": "Warning",
            "reason": "FailedCreate",
            "message": str(error),
            "lastTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "involvedObject": {"kind": about["kind"], "name": about["metadata"]["name"]},
        }


def _check_owner(resource: Object, there: Object | None) -> None:
    """Refuse to touch an object of somebody else's that has the name of ours."""
    if there is None:
        return
    metadata, uid = there["metadata"], resource["metadata"]["uid"]
    owners = [owner["uid"] for owner in metadata.get("ownerReferences") or ()]
    if uid not in (*owners, (metadata.get("labels") or {}).get(UID_LABEL)):
        name = f"{there['kind']} {metadata['name']}"
        remedy = f"delete it, or give this {resource['kind']} another name"
        raise ClusterError(409, "NameTaken", f"{name} is there already and belongs to something else; {remedy}")


def _is(resource: Object, key: ObjectKey) -> bool:
    return key == key_of_object(resource)


def _decisive(resource: Object) -> Object:
    """The part of a document from which another decision may follow."""
    status = resource.get("status") or {}
    return {name: value for name, value in status.items() if name not in FAST_FIELDS}
