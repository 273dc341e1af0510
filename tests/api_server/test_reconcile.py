"""Reconciling on a real API server: crashes between any two writes, conflicts, and objects of others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kindling_api.references import Reference
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.cache import WATCHED, Cache
from kindling_operator.cluster import Cluster, ClusterError, NotWritableError
from kindling_operator.enact import Enactor
from kindling_operator.events import Recorder
from kindling_operator.observe import Observer
from kindling_operator.reconcile import Reconciler
from kindling_operator.resync import fill
from kindling_operator.settings import Images, Settings
from kindling_operator.world import Note, ObjectKey, Plan

Object = dict[str, Any]
OnCluster = Callable[[Callable[[Cluster], Awaitable[Any]]], Any]

SETTINGS = Settings(
    images=Images(trainer="trainer", dataprep="dataprep", serve="serve"),
    storage=StorageSpec(uri="s3://bucket/models", credentials_secret="s3"),
)
KINDS = [one for one in WATCHED if one[1] != "RayJob"]
CHILDREN = (("batch/v1", "Job"), ("v1", "ConfigMap"), ("v1", "Service"), ("networking.k8s.io/v1", "NetworkPolicy"))
MOST_WRITES = 40


class Crash(BaseException):
    """The end of a process, as with kill -9."""


class Crashing(Cluster):
    """A connection whose process dies right after a given number of writes."""

    def __init__(self, there: Cluster, writes: int) -> None:
        super().__init__(there._client)
        self._left = writes

    async def _write(self, *arguments: Any, **options: Any) -> Object:
        if self._left == 0:
            raise Crash
        self._left -= 1
        return await super()._write(*arguments, **options)


class Operator:
    """Everything that a process holds in memory, without watches: it reads all there is when it starts."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.cache = Cache(lambda reference: None)
        self.observer = Observer(SETTINGS, cluster, self.cache, {})
        recorder = Recorder(cluster, identity="test")
        self.enactor = Enactor(cluster, self.cache, recorder, self.observer.refused)
        self._reconciler = Reconciler(self.observer, self.enactor)
        self._namespace = namespace

    async def settle(self, reference: Reference) -> None:
        """Reconcile until nothing follows any more."""
        await fill(self.cluster, self.cache, KINDS, [self._namespace])
        for _ in range(20):
            if await self._reconciler.reconcile(reference) != 0.0:
                return
        raise AssertionError("it does not settle")


def a_run(namespace: str, name: str = "tiny") -> Object:
    return {
        "apiVersion": "kindling.dev/v1alpha1",
        "kind": "PretrainRun",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "dataset": {"uri": "s3://bucket/dataset"},
            "model": {"preset": "llama-124m"},
            "training": {"steps": 10, "batch": {"tokens": 65536}},
            "parallelism": {"tensor": 2},
            "resources": {"nodes": 2},
        },
    }


def tiny(namespace: str) -> Reference:
    return Reference("PretrainRun", namespace, "tiny")


def key(
    namespace: str, kind: str = "PretrainRun", api_version: str = "kindling.dev/v1alpha1", name: str = "tiny"
) -> ObjectKey:
    return ObjectKey(api_version, kind, namespace, name)


async def children(cluster: Cluster, namespace: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for api_version, kind in CHILDREN:
        async for item in cluster.list(api_version, kind, namespace, labels="kindling.dev/name=tiny"):
            found[kind] += 1
            assert item["metadata"]["name"] == "tiny-ptr-1"
    return found


def test_a_run_gets_its_children_and_then_nothing_is_written_any_more(on_cluster: OnCluster, namespace: str) -> None:
    async def go(cluster: Cluster) -> None:
        await cluster.create(a_run(namespace), manager="user")
        operator = Operator(cluster, namespace)
        await operator.settle(tiny(namespace))
        assert await children(cluster, namespace) == {"Job": 1, "ConfigMap": 1, "Service": 1, "NetworkPolicy": 1}
        before = await cluster.get(key(namespace))
        await operator.settle(tiny(namespace))
        await Operator(Crashing(cluster, 0), namespace).enactor.enact(
            before or {}, Plan(status=(before or {})["status"])
        )
        after = await cluster.get(key(namespace))
        assert before and after
        assert before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
        assert after["status"]["attempt"] == 1

    on_cluster(go)


def test_a_crash_between_any_two_writes_leaves_no_duplicate_and_no_gap(on_cluster: OnCluster, namespace: str) -> None:
    async def go(cluster: Cluster) -> int:
        for writes in range(MOST_WRITES):
            await cluster.create(a_run(namespace), manager="user")
            try:
                await Operator(Crashing(cluster, writes), namespace).settle(tiny(namespace))
                return writes
            except Crash:
                pass
            await Operator(cluster, namespace).settle(tiny(namespace))
            assert await children(cluster, namespace) == {"Job": 1, "ConfigMap": 1, "Service": 1, "NetworkPolicy": 1}
            document = await cluster.get(key(namespace))
            assert document and document["status"]["attempt"] == 1, f"after a crash at write {writes + 1}"
            await clean(cluster, namespace)
        raise AssertionError("it never got to its end")

    assert on_cluster(go) >= 7, "the status, four children, and an Event at least"


async def clean(cluster: Cluster, namespace: str) -> None:
    """What garbage collection would do, which no controller does here."""
    await cluster.delete(key(namespace))
    for api_version, kind in CHILDREN:
        await cluster.delete(ObjectKey(api_version, kind, namespace, "tiny-ptr-1"))
    while await cluster.get(key(namespace)) or await cluster.get(ObjectKey("batch/v1", "Job", namespace, "tiny-ptr-1")):
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["ConfigMap", "NetworkPolicy"])
def test_an_object_of_somebody_elses_is_not_touched(on_cluster: OnCluster, namespace: str, kind: str) -> None:
    api_version = dict((name, version) for version, name in CHILDREN)[kind]
    theirs = {"apiVersion": api_version, "kind": kind, "metadata": {"namespace": namespace, "name": "tiny-ptr-1"}}
    theirs |= {"data": {"mine": "yes"}} if kind == "ConfigMap" else {"spec": {"podSelector": {}}}

    async def go(cluster: Cluster) -> None:
        before = await cluster.create(theirs, manager="somebody")
        await cluster.create(a_run(namespace), manager="user")
        operator = Operator(cluster, namespace)
        with pytest.raises(ClusterError, match=f"{kind} tiny-ptr-1 is there already and belongs to something else"):
            await operator.settle(tiny(namespace))
        after = await cluster.get(key(namespace, kind, api_version, "tiny-ptr-1"))
        assert after and after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
        assert await children(cluster, namespace) <= Counter({"Service": 1, "NetworkPolicy": 1, "ConfigMap": 1})
        world = await operator.observer.observe(tiny(namespace))
        assert world and "belongs to something else" in world.warnings[0]["message"]

    on_cluster(go)


def test_a_status_decided_on_an_old_version_is_not_written(on_cluster: OnCluster, namespace: str) -> None:
    async def go(cluster: Cluster) -> None:
        old = await cluster.create(a_run(namespace), manager="user")
        await cluster.merge(key(namespace), {"spec": {"suspend": True}}, manager="user")
        operator = Operator(cluster, namespace)
        with pytest.raises(ClusterError) as raised:
            await operator.enactor.enact(old, Plan(status={"phase": "Running"}))
        assert raised.value.status == 409
        seen = operator.cache.document(tiny(namespace))
        assert seen and seen["spec"]["suspend"] is True, "it was read anew at once"

    on_cluster(go)


def test_a_repeated_note_raises_the_count_of_its_event(on_cluster: OnCluster, namespace: str) -> None:
    async def go(cluster: Cluster) -> list[Object]:
        about = await cluster.create(a_run(namespace), manager="user")
        note = Note("Warning", "Restarting", "The node is lost.")
        for times in (3, 1):  # the second process does not know of the first one's
            recorder = Recorder(cluster, identity="test")
            for _ in range(times):
                recorder.tell(about, note)
            await asyncio.wait({asyncio.create_task(recorder.run())}, timeout=1)
        return [event async for event in cluster.list("v1", "Event", namespace)]

    events = on_cluster(go)
    assert [(event["reason"], event["count"]) for event in events] == [("Restarting", 3)]
    assert events[0]["involvedObject"]["name"] == "tiny"


def test_nothing_is_sent_without_leadership(on_cluster: OnCluster, namespace: str) -> None:
    async def go(cluster: Cluster) -> None:
        follower = Cluster(cluster._client, may_write=lambda: False)
        for write in (follower.create(a_run(namespace), manager="x"), follower.delete(key(namespace))):
            with pytest.raises(NotWritableError):
                await write
        assert await follower.get(key(namespace)) is None

    on_cluster(go)


def test_a_list_longer_than_a_page_is_read_to_its_end(
    on_cluster: OnCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kindling_operator.cluster.PAGE", 3)

    async def go(cluster: Cluster) -> set[str]:
        for number in range(7):
            await cluster.create(a_run(namespace, f"run-{number}"), manager="user")
        found = cluster.list("kindling.dev/v1alpha1", "PretrainRun", namespace)
        return {item["metadata"]["name"] async for item in found}

    assert on_cluster(go) == {f"run-{number}" for number in range(7)}


def test_kinds_that_are_not_installed_are_an_empty_list(on_cluster: OnCluster, namespace: str) -> None:
    async def go(cluster: Cluster) -> tuple[bool, list[Object]]:
        found = [item async for item in cluster.list("ray.io/v1", "RayJob", namespace)]
        return await cluster.installed("ray.io/v1", "RayJob"), found

    assert on_cluster(go) == (False, [])
