"""Everything that runs in the one operator that leads, put together.

kopf's watches ─▶ cache ─▶ queue ─▶ reconcile: observe → decide → apply
                    ▲                                      │
                    └───── resync, answers to writes ◀─────┘
"""

from __future__ import annotations

import asyncio
import logging

import kopf
from kopf._cogs.structs.references import Insights

from kindling_api.base import API_VERSION
from kindling_api.documents import KINDS
from kindling_api.references import Reference
from kindling_operator import handlers, metrics
from kindling_operator.apply import Applier
from kindling_operator.cache import RAY, WATCHED, ObjectCache
from kindling_operator.cluster import Cluster, ClusterError
from kindling_operator.events import Recorder
from kindling_operator.health import Health
from kindling_operator.lease import RETRY, LeaderLease
from kindling_operator.namespaces import Namespaces
from kindling_operator.observe import Observer
from kindling_operator.polling import Poller, Target
from kindling_operator.queue import Queue
from kindling_operator.reconcile import Reconciler
from kindling_operator.resync import fill, resync
from kindling_operator.settings import Settings

WORKERS = 3
"""Runs looked at at the same time. One event loop serves them all: with eight, each took three times as long and no
more were done (bench/operator)."""

RAY_CHECK_SECONDS = 30.0

log = logging.getLogger(__name__)


class Leader:
    """The parts of the operator, and the order in which they start."""

    def __init__(
        self, settings: Settings, cluster: Cluster, lease: LeaderLease, control: Cluster, *, identity: str
    ) -> None:
        """`cluster` writes only while the lease is held; `control` is for the Lease itself."""
        self._settings = settings
        self._cluster = cluster
        self._lease = lease
        self._control = control
        self._cache = ObjectCache(self._notify)
        self._namespaces = Namespaces(cluster, self._cache, settings.namespaces)
        self._poller = Poller(self._targets, self._notify)
        self._observer = Observer(settings, cluster, self._cache, self._poller.heard)
        self._recorder = Recorder(cluster, identity=identity)
        applier = Applier(cluster, self._cache, self._recorder, self._observer.refused)
        self._queue = Queue(Reconciler(self._observer, applier).reconcile, workers=WORKERS)
        self.health = Health(self._queue.stuck_seconds)
        """What the probes ask."""
        metrics.watch(self._cache.documents)
        metrics.QUEUE_DEPTH.set_function(lambda: len(self._queue))

    async def run(self) -> None:
        """Wait for leadership, then lead until told to end.

        Raises:
            LostError: leadership is gone.
            Exception: a part failed for good, and with it the whole.
        """
        await self._lease.acquire(self._control)
        metrics.LEADER.set(1)
        keeping = asyncio.create_task(self._lease.keep(self._control))
        leading = asyncio.create_task(self._lead())
        await _first_of(keeping, leading)

    async def _lead(self) -> None:
        kinds, namespaces = await self._prepare(), self._settings.namespaces
        log.info("watching %s", ", ".join(kind for _, kind in kinds))
        insights = Insights()
        watching = kopf.operator(
            registry=handlers.registry(self._cache, kinds),
            settings=handlers.settings(kinds),
            insights=insights,
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
        )
        await _first_of(
            asyncio.create_task(self._queue.run()),
            asyncio.create_task(self._poller.run()),
            asyncio.create_task(self._recorder.run()),
            asyncio.create_task(resync(self._cluster, self._cache, self._queue, kinds, self._namespaces.readable)),
            asyncio.create_task(self._follow(insights, kinds)),
            asyncio.create_task(self.health.listen(self._cluster, self._cache)),
            asyncio.create_task(self._ray_appears((RAY, "RayJob") in kinds)),
            asyncio.create_task(watching),  # last: at its end kopf cancels every task that began after it
        )

    async def _prepare(self) -> list[tuple[str, str]]:
        """Wait until our own kinds are installed, and read all there is.

        Returns:
            The kinds to watch.
        """
        while True:
            try:
                for kind in KINDS:
                    if not await self._cluster.installed(API_VERSION, kind):
                        raise ClusterError(404, "NotFound", f"the CustomResourceDefinition of {kind} is not installed")
                ray = await self._cluster.installed(RAY, "RayJob")
                kinds = [one for one in WATCHED if ray or one[0] != RAY]
                await self._namespaces.look()
                await fill(self._cluster, self._cache, kinds, self._namespaces.readable())
            except ClusterError as error:
                log.warning("not ready to begin: %s", error)
                await asyncio.sleep(RETRY)
                continue
            for reference, _ in self._cache.documents():
                self._queue.add(reference)
            return kinds

    async def _follow(self, insights: Insights, kinds: list[tuple[str, str]]) -> None:
        """Watch the namespaces that are there, for as long as they are."""

        async def came(namespace: str) -> None:
            await fill(self._cluster, self._cache, kinds, [namespace])
            for reference, _ in list(self._cache.documents()):
                if reference.namespace == namespace:
                    self._queue.add(reference)

        await self._namespaces.keep(came, lambda names: handlers.watch_only(insights, names))

    async def _ray_appears(self, watched: bool) -> None:
        """Return, and so start the process anew, once RayJobs are known that were not when the watches began."""
        while watched or not await self._knows_ray():
            await asyncio.sleep(RAY_CHECK_SECONDS)
        log.info("KubeRay has been installed: starting again to watch RayJobs")

    async def _knows_ray(self) -> bool:
        try:
            return await self._cluster.installed(RAY, "RayJob")
        except ClusterError:
            return False

    def _notify(self, reference: Reference) -> None:
        self._queue.add(reference)

    def _targets(self) -> list[Target]:
        return self._observer.targets()


async def _first_of(*tasks: asyncio.Task[None]) -> None:
    """Wait for the first task to end, end the others, and raise what it raised."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    await asyncio.wait(tasks, timeout=5)
    for task in done:
        task.result()
