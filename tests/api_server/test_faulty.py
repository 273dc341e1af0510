"""The operator behind an API server that errs: nothing is made twice, nothing is forgotten, and nobody is flooded."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from operator_process import OnCluster, Process, apply, jobs_of, wait

from kubenode.api_server import ApiServer

SEED = 1
RUNS = 20
MOST_A_SECOND = 40
FOREVER = aiohttp.ClientTimeout(total=None, sock_read=600)


class FaultyProxy:
    """Passes requests on to an API server, or answers some of them itself, at random.

    The share `rate` of requests ends in an error such as a server gives under load or in an upgrade, before or after
    the real one has done what was asked. As many events of watches are sent twice, and after as many a watch ends.
    """

    def __init__(self, server: ApiServer, rate: float) -> None:
        self._server, self._rate, self._chance = server, rate, random.Random(SEED)
        self.requests: Counter[str] = Counter()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        threading.Thread(target=self._serve, args=(ready,), daemon=True).start()
        assert ready.wait(30)

    def kubeconfig(self, user: str) -> Path:
        """The file that lets `user` in by this proxy."""
        document = json.loads(self._server.kubeconfig(user).read_text())
        document["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self.port}"}
        path = self._server.folder / f"{user}-faulty.kubeconfig"
        path.write_text(json.dumps(document))
        return path

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        ready.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust, limit=0), auto_decompress=False)
        application = web.Application(client_max_size=1 << 26)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]

    def _errs(self) -> bool:
        return self._chance.random() < self._rate

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        is_watch = request.query.get("watch") in ("1", "true")
        self.requests["watch" if is_watch else request.method] += 1
        errs, is_done = self._errs(), self._chance.random() < 0.5
        if errs and not is_done:
            return self._error(request, is_watch)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "connection")}
        body = await request.read()
        url = f"{self._server.url}{request.raw_path}"
        async with self._session.request(
            request.method, url, headers=headers, data=body or None, timeout=FOREVER
        ) as answer:
            if is_watch:
                return await self._watch(request, answer)
            content = await answer.read()
            if errs:  # it was done, and nobody hears of it
                return self._error(request, is_watch)
            return web.Response(status=answer.status, body=content, content_type="application/json")

    def _error(self, request: web.Request, is_watch: bool) -> web.Response:
        self.requests["errors"] += 1
        status = self._chance.choice([429, 500, 503, 504, 403, 0, *([410] if is_watch else [409])])
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()  # of which nothing arrives
        said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": "at random"}
        return web.json_response(said, status=status, headers={"Retry-After": "1"} if status == 429 else {})

    async def _watch(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        stream = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        with suppress(ConnectionResetError, aiohttp.ClientError):
            async for line in answer.content:
                await stream.write(line)
                if self._errs():
                    await stream.write(line)
                if self._errs():
                    break
        return stream


class KeptUp:
    """An operator that starts again whenever it ends, as its pod would."""

    def __init__(self, start: Callable[[], Process]) -> None:
        self._start, self.process, self.starts = start, start(), 1

    def check(self) -> None:
        if self.process.process.poll() is not None:
            self.process, self.starts = self._start(), self.starts + 1

    def close(self) -> None:
        self.process.close()


@pytest.mark.parametrize("rate", [0.05, pytest.param(0.3, marks=pytest.mark.exhaustive)])
def test_every_run_gets_one_job_whatever_share_of_requests_goes_wrong(
    server: ApiServer, on_cluster: OnCluster, namespace: str, tmp_path: Path, rate: float
) -> None:
    began = time.monotonic()
    with closing(FaultyProxy(server, rate)) as proxy:
        with closing(KeptUp(lambda: Process(proxy, tmp_path, namespace, "faulty"))) as operator:
            for number in range(RUNS):
                apply(on_cluster, namespace, f"run-{number}")

            def all_have_jobs() -> bool:
                operator.check()
                return len(jobs_of(on_cluster, namespace)) >= RUNS

            wait(all_have_jobs, 240, operator.process.log)
            time.sleep(5)
        seconds, asked = time.monotonic() - began, dict(proxy.requests)
    made = jobs_of(on_cluster, namespace)
    assert sorted(made) == sorted(f"run-{number}" for number in range(RUNS)), "one Job each"
    each_second = sum(count for what, count in asked.items() if what != "errors") / seconds
    print(f"{each_second:.1f} requests a second for {seconds:.0f} s, {operator.starts} starts: {asked}")
    assert each_second < MOST_A_SECOND
