"""Kubernetes Events: what `kubectl describe` tells of a run."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from datetime import UTC, datetime

from kindling_api.bounds import EVENT_MESSAGE
from kindling_operator.cluster import Cluster, ClusterError
from kindling_operator.world import EventRecord, Object, ObjectKey

COMPONENT = "kindling-operator"
REMEMBERED = 4096
"""Events whose count is known; one that is forgotten starts from 1 again."""

MOST_PENDING = 10_000
"""About a kilobyte each."""

log = logging.getLogger(__name__)


class Recorder:
    """Writes Notes as Events, aside from all else; the same note again raises the count of the first."""

    def __init__(self, cluster: Cluster, *, identity: str) -> None:
        self._cluster = cluster
        self._identity = identity
        self._counts: OrderedDict[ObjectKey, int] = OrderedDict()
        self._pending: asyncio.Queue[Object] = asyncio.Queue(MOST_PENDING)

    def record(self, about: Object, event: EventRecord) -> None:
        """Have it written soon; nobody waits for it, and nothing is held up by an API server that takes no Events."""
        try:
            self._pending.put_nowait(self._event(about, event))
        except asyncio.QueueFull:
            log.warning("the Event %s %r was not written: too many wait", event.reason, event.message)

    async def run(self) -> None:
        """Write what is to be told, in its order, until cancelled; what cannot be written is logged."""
        while True:
            await self._write(await self._pending.get())

    async def _write(self, event: Object) -> None:
        metadata = event["metadata"]
        key = ObjectKey("v1", "Event", metadata["namespace"], metadata["name"])
        count = self._counts.pop(key, 0) + 1
        try:
            if count == 1:
                await self._cluster.create(event, manager=COMPONENT)
            else:
                await self._repeat(key, event, count)
        except ClusterError as error:
            if error.reason != "AlreadyExists":  # an earlier process has told it
                log.warning("the Event %s %r was not written: %s", event["reason"], event["message"], error)
        self._counts[key] = count
        if len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)

    async def _repeat(self, key: ObjectKey, event: Object, count: int) -> None:
        patch = {"count": count, "lastTimestamp": event["lastTimestamp"]}
        try:
            await self._cluster.merge(key, patch, manager=COMPONENT)
        except ClusterError as error:
            if error.status != 404:  # Events are kept for an hour only
                raise
            await self._cluster.create(event, manager=COMPONENT)

    def _event(self, about: Object, event: EventRecord) -> Object:
        metadata, now = about["metadata"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        words = "\n".join((metadata["uid"], event.type, event.reason, event.message))
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{hashlib.sha256(words.encode()).hexdigest()[:16]}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:EVENT_MESSAGE],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._identity,
        }
