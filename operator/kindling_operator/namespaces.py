"""Whether the namespaces that are to be watched are there and may be read; and what is done in one that goes.

A namespace that is deleted takes its Roles along, in no order. All that the operator may do there from then on is what
a ClusterRole of the chart allows: to see that the namespace goes, and to take its own finalizer off documents.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from kindling_api.base import API_VERSION
from kindling_api.documents import KINDS
from kindling_operator.cache import ObjectCache
from kindling_operator.cluster import FIELD_MANAGER, Cluster, ClusterError
from kindling_operator.metrics import NAMESPACE_WATCHED
from kindling_operator.policies.retention import FINALIZER, without_finalizer
from kindling_operator.world import Object, ObjectKey

EVERY_SECONDS = 10.0

State = Literal["watched", "going", "gone", "closed"]

_LOG_LINES: dict[State, str] = {
    "watched": "the namespace %s is watched",
    "going": "the namespace %s is being deleted: it is not watched any more, and no clean-up Job can run there",
    "gone": "there is no namespace %s (any more): it is watched once it is there, and has the chart's Role",
    "closed": "in the namespace %s nothing may be read: it is watched once it has the chart's Role",
}

log = logging.getLogger(__name__)


class Namespaces:
    """The namespaces of the settings; nothing is asked where all of the cluster is watched, whose rights stay."""

    def __init__(self, cluster: Cluster, cache: ObjectCache, names: Sequence[str]) -> None:
        """`names` as in the settings: none means all."""
        self._cluster = cluster
        self._cache = cache
        self._names = names
        self._states: dict[str, State] = {}
        self._trouble: dict[str, str] = {}

    def readable(self) -> tuple[str, ...]:
        """Those that can be listed and watched now; the empty name means all of the cluster."""
        if not self._names:
            return ("",)
        return tuple(name for name in self._names if self._states.get(name) == "watched")

    async def look(self) -> None:
        """See how they are; a change is logged once. Documents in one that goes are let go.

        Raises:
            ClusterError: the API server did not answer.
        """
        for name in self._names:
            state = await self._state(name)
            if state != self._states.get(name):
                log.log(logging.INFO if state == "watched" else logging.WARNING, _LOG_LINES[state], name)
            self._states[name] = state
            NAMESPACE_WATCHED.labels(name).set(state == "watched")
            if state == "going":
                await self._let_go(name)

    async def keep(
        self,
        came: Callable[[str], Awaitable[None]],
        watch: Callable[[Sequence[str]], Awaitable[None]],
    ) -> None:
        """Look again and again, until cancelled.

        Args:
            came: reads what is in a namespace that can be read (again), before it is watched.
            watch: watches these namespaces from now on, and no others.
        """
        while self._names:
            before = self.readable()
            try:
                await self.look()
                for name in set(self.readable()) - set(before):
                    await came(name)
            except ClusterError as error:
                log.warning("the namespaces cannot be looked at: %s", error)
                for name in set(self.readable()) - set(before):
                    del self._states[name]  # it comes again
            await watch(self.readable())
            for name in set(self._names) - set(self.readable()):
                self._cache.leave(name)
            await asyncio.sleep(EVERY_SECONDS)
        await asyncio.Event().wait()

    async def _state(self, name: str) -> State:
        try:
            found = await self._cluster.get(ObjectKey("v1", "Namespace", "", name))
        except ClusterError as error:
            if error.status != 403:
                raise
            found = {"metadata": {}}  # an administrator's own rights may leave this one out
        if found is None:
            return "gone"
        if "deletionTimestamp" in found["metadata"]:
            return "going"
        return "watched" if await self._may_read(name) else "closed"

    async def _may_read(self, name: str) -> bool:
        try:
            async for _ in self._cluster.list("batch/v1", "Job", name, fields="metadata.name=none"):
                pass
        except ClusterError as error:
            if error.status != 403:
                raise
            return False
        return True

    async def _let_go(self, name: str) -> None:
        """Take the finalizer off all documents of a namespace; what cannot be done now is retried at the next look."""
        for kind in KINDS:
            try:
                async for resource in self._cluster.list(API_VERSION, kind, name):
                    if FINALIZER in (resource["metadata"].get("finalizers") or ()):
                        await self._release(resource)
            except ClusterError as error:
                if self._trouble.get(name) != str(error) and error.status not in (404, 409):
                    log.warning("a %s cannot be let go with its namespace: %s", kind, error)
                    self._trouble[name] = str(error)

    async def _release(self, resource: Object) -> None:
        key, patch = without_finalizer(resource)
        await self._cluster.merge(key, patch, manager=FIELD_MANAGER)
        where = ((resource.get("status") or {}).get("storage") or {}).get("uri", "its storage")
        log.warning("%s/%s/%s goes with its namespace; its data stays in %s", key.kind, key.namespace, key.name, where)
