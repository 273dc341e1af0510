"""Leadership: of several operators, the one that holds the Lease works, and another takes over when it falls silent.

A Lease that nobody renews for DURATION seconds is free; whoever has watched it be silent for so long takes it. The
holder stops writing RENEW seconds after its last renewal, earlier than anybody else may begin, and measures that by its
own monotonic clock, so clocks that disagree do no harm.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

from kindling_operator.cluster import LEASE_FIELD_MANAGER, Cluster, ClusterError
from kindling_operator.world import Object, ObjectKey

DURATION, RENEW, RETRY = 15.0, 10.0, 2.0
"""Seconds: of silence after which a Lease is free; until the holder gives up; between two attempts."""

_WAITS = "%s does nothing, for the Lease %s/%s is held by %s: one operator works in a namespace, of all releases in it"

log = logging.getLogger(__name__)


class LostError(Exception):
    """Somebody else leads, or the Lease could not be renewed in time; this process must end."""


class LeaderLease:
    """One candidate for leadership."""

    def __init__(self, *, namespace: str, identity: str, name: str = "kindling-operator") -> None:
        self._key = ObjectKey("coordination.k8s.io/v1", "Lease", namespace, name)
        self._identity = identity
        self._renewed = float("-inf")
        self._seen: tuple[object, ...] = ()
        self._seen_at = 0.0
        self._holder = ""
        """Who leads instead, as far as is known."""

    def held(self) -> bool:
        """Whether this process leads, and may write."""
        return time.monotonic() - self._renewed < RENEW

    async def acquire(self, cluster: Cluster) -> None:
        """Wait until this process leads. `cluster` must let it write before that."""
        waits_for = ""
        while not await self._try(cluster):
            if self._holder not in ("", waits_for):
                waits_for = self._holder
                log.info(_WAITS, self._identity, self._key.namespace, self._key.name, waits_for)
            await asyncio.sleep(RETRY)
        log.info("%s leads", self._identity)

    async def keep(self, cluster: Cluster) -> None:
        """Renew until cancelled.

        Raises:
            LostError: leadership is gone.
        """
        while True:
            await asyncio.sleep(RETRY)
            left = self._renewed + RENEW - time.monotonic()
            try:
                mine = await asyncio.wait_for(self._try(cluster), timeout=max(left, 0.0))
            except TimeoutError:
                mine = False
            if not mine and not self.held():
                raise LostError(f"{self._identity} could not renew the Lease for {RENEW:.0f} s")

    async def release(self, cluster: Cluster) -> None:
        """Let another one take over at once; it is no harm if that fails."""
        if not self.held():
            return
        self._renewed = float("-inf")
        try:
            there = await cluster.get(self._key)
            if there and there["spec"].get("holderIdentity") == self._identity:
                there["spec"]["holderIdentity"] = ""
                await cluster.replace(there, manager=LEASE_FIELD_MANAGER)
        except ClusterError as error:
            log.warning("the Lease was not released: %s", error)

    async def _try(self, cluster: Cluster) -> bool:
        """Take or renew the Lease; False where that fails, or it is somebody else's."""
        began = time.monotonic()
        try:
            there = await cluster.get(self._key)
            if there is None:
                await cluster.create(self._claim(None), manager=LEASE_FIELD_MANAGER)
            elif self._is_free(there):
                await cluster.replace(self._claim(there), manager=LEASE_FIELD_MANAGER)
            else:
                self._renewed, self._holder = float("-inf"), there["spec"]["holderIdentity"]
                return False
        except ClusterError as error:
            log.warning("the Lease was not taken: %s", error)
            return False
        self._renewed = began
        return True

    def _is_free(self, there: Object) -> bool:
        """Ours, given up, or silent for long enough since it was first seen as it is."""
        spec = there["spec"]
        seen = (spec.get("holderIdentity"), spec.get("renewTime"), there["metadata"]["resourceVersion"])
        if seen != self._seen:
            self._seen, self._seen_at = seen, time.monotonic()
        silent = time.monotonic() - self._seen_at >= (spec.get("leaseDurationSeconds") or DURATION)
        return not spec.get("holderIdentity") or spec["holderIdentity"] == self._identity or silent

    def _claim(self, there: Object | None) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = there["spec"] if there else {}
        taken = spec.get("holderIdentity") != self._identity
        metadata = there["metadata"] if there else {"namespace": self._key.namespace, "name": self._key.name}
        return {
            "apiVersion": self._key.api_version,
            "kind": self._key.kind,
            "metadata": metadata,
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(DURATION),
                "acquireTime": now if taken else spec.get("acquireTime", now),
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions", 0)) + (1 if there and taken else 0),
            },
        }
