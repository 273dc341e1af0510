"""The operator as a process, with its watches, on a real API server."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from operator_process import OnCluster, Process, apply, jobs_of, wait

from kindling_api.references import Reference
from kindling_operator.cache import ObjectCache
from kindling_operator.cluster import Cluster
from kindling_operator.health import DEAF_SECONDS, missed
from kindling_operator.world import ObjectKey
from kubenode.api_server import ApiServer


@pytest.fixture
def start(server: ApiServer, tmp_path: Path, namespace: str) -> Iterator[Callable[[str], Process]]:
    """Starts operators that watch the test's namespace, and ends them."""
    started: list[Process] = []

    def one(name: str) -> Process:
        started.append(Process(server, tmp_path, namespace, name))
        return started[-1]

    yield one
    for operator in started:
        operator.close()


def has_job(on_cluster: OnCluster, namespace: str, name: str) -> bool:
    return name in jobs_of(on_cluster, namespace)


def test_a_run_that_is_applied_gets_its_job_and_a_signal_hands_leadership_on(
    start: Callable[[str], Process], on_cluster: OnCluster, namespace: str
) -> None:
    operator = start("first")
    wait(operator.leads, 60, operator.log)
    apply(on_cluster, namespace, "tiny")
    wait(lambda: has_job(on_cluster, namespace, "tiny"), 30, operator.log)
    assert operator.ask("healthz") == "ok"
    assert 'kindling_runs{kind="PretrainRun",phase="Pending"} 1.0' in operator.ask("metrics")

    second = start("second")
    wait(lambda: second.ask("readyz") == "ok", 60, second.log)
    assert not second.leads()
    operator.process.send_signal(signal.SIGTERM)
    assert operator.process.wait(timeout=20) == 0
    assert wait(second.leads, 10, second.log) < 10
    lines = [json.loads(line) for line in operator.log.read_text().splitlines()]
    assert lines[-1]["message"] == "the operator ends, as it was asked to"


def test_an_api_server_that_comes_back_finds_the_operator_at_work(
    start: Callable[[str], Process], server: ApiServer, on_cluster: OnCluster, namespace: str
) -> None:
    operator = start("first")
    wait(operator.leads, 60, operator.log)
    server.kill("kube-apiserver")
    server.start()
    apply(on_cluster, namespace, "late")
    if operator.process.poll() is not None:  # it was away for longer than a Lease holds: Kubernetes starts it again
        operator = start("first")
    wait(lambda: has_job(on_cluster, namespace, "late"), 30, operator.log)


def test_what_a_watch_does_not_show_though_it_is_there_proves_the_watch_deaf(
    on_cluster: OnCluster, namespace: str
) -> None:
    now = [100.0]
    tiny = Reference("PretrainRun", namespace, "tiny")
    apply(on_cluster, namespace, "tiny")

    async def go(cluster: Cluster) -> None:
        key = ObjectKey("kindling.dev/v1alpha1", *tiny)
        cache = ObjectCache(lambda reference: None, clock=lambda: now[0])
        cache.learned(await cluster.get(key) or {})
        assert await missed(cluster, cache) == ""
        now[0] += DEAF_SECONDS + 1
        assert f"the watch of PretrainRun has not shown {namespace}/tiny" in await missed(cluster, cache)
        await cluster.delete(key)
        while await cluster.get(key):
            await asyncio.sleep(0.02)
        assert await missed(cluster, cache) == "", "it is gone: nothing to show"
        assert cache.document(tiny) is None

    on_cluster(go)
