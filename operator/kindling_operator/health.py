"""Whether this process does its work: `/healthz` for the kubelet, `/readyz`, and `/metrics` for Prometheus.

A watch can stop delivering while its process looks alive. Everything that the operator writes or lists must therefore
come back through the watch; what does not, although it is still there, proves that the watch is deaf, and the process
is to be started again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from kindling_operator.cache import ObjectCache
from kindling_operator.cluster import Cluster, ClusterError
from kindling_operator.metrics import LOOP_LAG_SECONDS

DEAF_SECONDS = 60.0
"""How late a watch may be."""

STUCK_SECONDS = 120.0
"""For how long the queue may finish nothing: longer than the slowest request."""

CHECK_SECONDS = 5.0
MOST_CHECKED = 20

log = logging.getLogger(__name__)


class Health:
    """What is wrong with this process."""

    def __init__(self, stuck_seconds: Callable[[], float]) -> None:
        """`stuck_seconds` says for how long the queue has finished nothing although there is work."""
        self._stuck_seconds = stuck_seconds
        self._deaf = ""

    def problem(self) -> str:
        """The reason to start this process again; empty while there is none."""
        if self._deaf:
            return self._deaf
        if (seconds := self._stuck_seconds()) > STUCK_SECONDS:
            return f"runs wait to be looked at, and for {seconds:.0f} s none was done"
        return ""

    async def listen(self, cluster: Cluster, cache: ObjectCache) -> None:
        """Watch the watches, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + CHECK_SECONDS
            await asyncio.sleep(CHECK_SECONDS)
            LOOP_LAG_SECONDS.set(loop.time() - due)
            try:
                self._deaf = await missed(cluster, cache)
            except ClusterError as error:
                log.warning("the watches cannot be checked: %s", error)

    async def serve(self, port: int) -> web.AppRunner:
        """Answer on `port`, while standing by, too; the caller cleans the runner up."""
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", _readyz)
        application.router.add_get("/metrics", _metrics)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=port).start()
        return runner

    async def _healthz(self, _: web.Request) -> web.Response:
        problem = self.problem()
        return web.Response(text=problem or "ok", status=500 if problem else 200)


async def missed(cluster: Cluster, cache: ObjectCache) -> str:
    """Which watch has not shown what is there; objects that are gone are dropped from the cache on the way."""
    for key in cache.unconfirmed(longer_than=DEAF_SECONDS)[:MOST_CHECKED]:
        version = cache.version(key)
        found = await cluster.get(key)
        if key not in cache.unconfirmed(longer_than=DEAF_SECONDS):
            continue  # meanwhile it came
        if found is None:
            cache.forget(key, version)
        else:
            return f"the watch of {key.kind} has not shown {key.namespace}/{key.name} for {DEAF_SECONDS:.0f} s"
    return ""


async def _readyz(_: web.Request) -> web.Response:
    return web.Response(text="ok")  # leading or standing by: both is doing one's work


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
