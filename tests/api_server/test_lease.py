"""Leadership on a real API server: one at a time, and never nobody for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kindling_operator import lease
from kindling_operator.cluster import Cluster
from kindling_operator.lease import LeaderLease, LostError

OnCluster = Callable[[Callable[[Cluster], Awaitable[Any]]], Any]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the real times; a Lease counts whole seconds."""
    monkeypatch.setattr(lease, "DURATION", 2.0)
    monkeypatch.setattr(lease, "RENEW", 1.0)
    monkeypatch.setattr(lease, "RETRY", 0.2)


async def waits(task: asyncio.Task[None], seconds: float) -> bool:
    await asyncio.wait({task}, timeout=seconds)
    return not task.done()


def test_the_second_says_for_whom_it_waits_until_the_first_releases(
    on_cluster: OnCluster, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def go(cluster: Cluster) -> None:
        first, second = (
            LeaderLease(namespace=namespace, identity="first"),
            LeaderLease(namespace=namespace, identity="second"),
        )
        await first.acquire(cluster)
        keeping, waiting = asyncio.create_task(first.keep(cluster)), asyncio.create_task(second.acquire(cluster))
        assert await waits(waiting, 3.0), "the first renews"
        assert first.held() and not second.held()
        (reason,) = [record.message for record in caplog.records if "does nothing" in record.message]
        assert reason.startswith(f"second does nothing, for the Lease {namespace}/kindling-operator is held by first")
        keeping.cancel()
        await first.release(cluster)
        assert not first.held()
        assert not await waits(waiting, 1.0)
        assert second.held()

    on_cluster(go)


def test_a_silent_leader_is_replaced_and_may_not_write_before_that(on_cluster: OnCluster, namespace: str) -> None:
    async def go(cluster: Cluster) -> None:
        first, second = (
            LeaderLease(namespace=namespace, identity="first"),
            LeaderLease(namespace=namespace, identity="second"),
        )
        await first.acquire(cluster)
        waiting = asyncio.create_task(second.acquire(cluster))
        assert await waits(waiting, 1.2)
        assert not first.held(), "it has stopped writing before anybody else may begin"
        assert not await waits(waiting, 3.0)
        with pytest.raises(LostError):
            await first.keep(cluster)

    on_cluster(go)


def test_a_leader_that_starts_again_under_its_name_leads_at_once(on_cluster: OnCluster, namespace: str) -> None:
    async def go(cluster: Cluster) -> None:
        await LeaderLease(namespace=namespace, identity="first").acquire(cluster)
        await asyncio.wait_for(LeaderLease(namespace=namespace, identity="first").acquire(cluster), timeout=1)

    on_cluster(go)
