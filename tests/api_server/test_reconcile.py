"""Reconciling on a real API server: crashes between any two writes, conflicts, and objects of others."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from kindling_api.references import Reference
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.apply import Applier
from kindling_operator.cache import WATCHED, ObjectCache
from kindling_operator.children import key_of_object
from kindling_operator.cluster import Cluster, ClusterError, NotWritableError
from kindling_operator.decide import decide
from kindling_operator.events import Recorder
from kindling_operator.observe import Observer
from kindling_operator.owners import owner_references
from kindling_operator.reconcile import Reconciler
from kindling_operator.resync import fill
from kindling_operator.settings import Images, Settings
from kindling_operator.world import EventRecord, ObjectKey, Plan

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
        self.cache = ObjectCache(lambda reference: None)
        self.observer = Observer(SETTINGS, cluster, self.cache, {})
        recorder = Recorder(cluster, identity="test")
        self.applier = Applier(cluster, self.cache, recorder, self.observer.refused)
        self._reconciler = Reconciler(self.observer, self.applier)
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
            (owner,) = item["metadata"]["ownerReferences"]
            assert item["metadata"]["name"] == first_attempt(owner)
    return found


def first_attempt(document: Object) -> str:
    """What the objects of its first attempt are called; `document` is itself or a reference to it."""
    uid: str = document.get("metadata", document)["uid"]
    return f"tiny-ptr-{uid[:8]}-1"


def test_a_run_gets_its_children_and_then_nothing_is_written_any_more(on_cluster: OnCluster, namespace: str) -> None:
    async def go(cluster: Cluster) -> None:
        await cluster.create(a_run(namespace), manager="user")
        operator = Operator(cluster, namespace)
        await operator.settle(tiny(namespace))
        assert await children(cluster, namespace) == {"Job": 1, "ConfigMap": 1, "Service": 1, "NetworkPolicy": 1}
        before = await cluster.get(key(namespace))
        await operator.settle(tiny(namespace))
        await Operator(Crashing(cluster, 0), namespace).applier.apply(
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
        async for item in cluster.list(api_version, kind, namespace, labels="kindling.dev/name=tiny"):
            await cluster.delete(key_of_object(item))
    while await cluster.get(key(namespace)) or await children(cluster, namespace):
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("same_process", [True, False], ids=["the same operator", "an operator that starts anew"])
def test_a_document_that_is_deleted_changed_and_applied_again_has_nothing_of_the_first(
    on_cluster: OnCluster, namespace: str, same_process: bool
) -> None:
    async def go(cluster: Cluster) -> None:
        for writes in range(MOST_WRITES):
            first = await cluster.create(a_run(namespace), manager="user")
            operator = Operator(Crashing(cluster, writes), namespace)
            with suppress(Crash):
                await operator.settle(tiny(namespace))
            before, was = await everything(cluster, namespace), await cluster.get(key(namespace))
            await cluster.delete(key(namespace))
            changed = a_run(namespace)
            changed["spec"]["training"]["steps"] = 20
            again = await cluster.create(changed, manager="user")
            if same_process:
                operator.applier._cluster = operator.cluster = cluster
            else:
                operator = Operator(cluster, namespace)
            await operator.settle(tiny(namespace))

            found = await everything(cluster, namespace)
            assert {uid: found[uid] for uid in before} == before, "what is left of the first is not touched"
            mine = found[again["metadata"]["uid"]]
            assert sorted(mine) == ["ConfigMap", "Job", "NetworkPolicy", "Service"]
            document = await cluster.get(key(namespace))
            assert was and document and document["status"]["attempt"] == 1
            assert document["status"]["key"] != was.get("status", {}).get("key")
            run_map = await cluster.get(key(namespace, "ConfigMap", "v1", first_attempt(again)))
            run_file = json.loads((run_map or {})["data"]["run.json"])
            assert (run_file["uid"], run_file["key"]) == (again["metadata"]["uid"], document["status"]["key"])
            await clean(cluster, namespace)
            if first["metadata"]["uid"] in before and len(before[first["metadata"]["uid"]]) == 4:
                return
        raise AssertionError("it never got to its end")

    on_cluster(go)


async def everything(cluster: Cluster, namespace: str) -> dict[str, dict[str, str]]:
    """All children there are, by their owners' UIDs: kind and resourceVersion."""
    found: dict[str, dict[str, str]] = {}
    for api_version, kind in CHILDREN:
        async for item in cluster.list(api_version, kind, namespace, labels="kindling.dev/name=tiny"):
            (owner,) = item["metadata"]["ownerReferences"]
            found.setdefault(owner["uid"], {})[kind] = item["metadata"]["resourceVersion"]
    return found


def test_what_an_earlier_operator_has_named_is_not_made_again(on_cluster: OnCluster, namespace: str) -> None:
    async def go(cluster: Cluster) -> None:
        run = await cluster.create(a_run(namespace), manager="user")
        operator = Operator(cluster, namespace)
        await fill(cluster, operator.cache, KINDS, [namespace])
        world = await operator.observer.observe(tiny(namespace))
        assert world
        await operator.applier.apply(world.resource, decide(world))  # the attempt's number alone
        world = await operator.observer.observe(tiny(namespace))
        assert world
        plan = decide(world)
        for item in (*plan.apply, *plan.create):
            text = json.dumps(item).replace(first_attempt(run), "tiny-ptr-1")
            await cluster.create(json.loads(text.replace('"kindling.dev/uid": ', '"earlier": ')), manager="kindling")
        await Operator(cluster, namespace).settle(tiny(namespace))
        names = {
            (kind, item["metadata"]["name"])
            for api_version, kind in CHILDREN
            async for item in cluster.list(api_version, kind, namespace, labels="kindling.dev/name=tiny")
        }
        assert names == {(kind, "tiny-ptr-1") for _, kind in CHILDREN}
        job = await cluster.get(ObjectKey("batch/v1", "Job", namespace, "tiny-ptr-1"))
        document = await cluster.get(key(namespace))
        assert job and document and document["status"]["attempts"][0]["uid"] == job["metadata"]["uid"]

    on_cluster(go)


@pytest.mark.parametrize("kind", ["ConfigMap", "NetworkPolicy"])
def test_an_object_of_somebody_elses_is_not_touched(on_cluster: OnCluster, namespace: str, kind: str) -> None:
    api_version = dict((name, version) for version, name in CHILDREN)[kind]
    theirs: Object = {"apiVersion": api_version, "kind": kind}
    theirs |= {"data": {"mine": "yes"}} if kind == "ConfigMap" else {"spec": {"podSelector": {}}}

    async def go(cluster: Cluster) -> None:
        run = await cluster.create(a_run(namespace), manager="user")
        name = first_attempt(run)
        before = await cluster.create(theirs | {"metadata": {"namespace": namespace, "name": name}}, manager="somebody")
        operator = Operator(cluster, namespace)
        with pytest.raises(ClusterError, match=f"{kind} {name} is there already and belongs to something else"):
            await operator.settle(tiny(namespace))
        there = key(namespace, kind, api_version, name)
        world = await operator.observer.observe(tiny(namespace))
        assert world and "belongs to something else" in world.warnings[0]["message"]
        await operator.applier.apply(run, Plan(status=run["status"], delete=(there,)))
        after = await cluster.get(there)
        assert after and after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
        assert await children(cluster, namespace) <= Counter({"Service": 1, "NetworkPolicy": 1, "ConfigMap": 1})

    on_cluster(go)


def test_a_service_of_the_document_that_had_the_name_before_is_not_taken_over(
    on_cluster: OnCluster, namespace: str
) -> None:
    def serves(document: Object) -> Plan:
        metadata = {"name": "tiny-serve", "namespace": namespace, **owner_references(document)}
        spec = {"selector": {"kindling.dev/uid": document["metadata"]["uid"]}, "ports": [{"port": 80}]}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
        return Plan(status={"phase": "Succeeded"}, apply=(service,))

    async def go(cluster: Cluster) -> None:
        operator = Operator(cluster, namespace)
        first = await cluster.create(a_run(namespace), manager="user")
        await operator.applier.apply(first, serves(first))
        there = key(namespace, "Service", "v1", "tiny-serve")
        before = await cluster.get(there)
        await cluster.delete(key(namespace))
        again = await cluster.create(a_run(namespace), manager="user")
        with pytest.raises(ClusterError, match="Service tiny-serve is there already and belongs to something else"):
            await operator.applier.apply(again, serves(again))
        assert await cluster.get(there) == before
        await cluster.delete(there)  # as garbage collection does, before long
        await operator.applier.apply(await cluster.get(key(namespace)) or {}, serves(again))
        after = await cluster.get(there)
        assert after and after["spec"]["selector"] == {"kindling.dev/uid": again["metadata"]["uid"]}

    on_cluster(go)


def test_a_status_decided_on_an_old_version_is_not_written(on_cluster: OnCluster, namespace: str) -> None:
    async def go(cluster: Cluster) -> None:
        old = await cluster.create(a_run(namespace), manager="user")
        await cluster.merge(key(namespace), {"spec": {"suspend": True}}, manager="user")
        operator = Operator(cluster, namespace)
        with pytest.raises(ClusterError) as raised:
            await operator.applier.apply(old, Plan(status={"phase": "Running"}))
        assert raised.value.status == 409
        seen = operator.cache.document(tiny(namespace))
        assert seen and seen["spec"]["suspend"] is True, "it was read anew at once"

    on_cluster(go)


def test_a_repeated_note_raises_the_count_of_its_event(on_cluster: OnCluster, namespace: str) -> None:
    async def go(cluster: Cluster) -> list[Object]:
        about = await cluster.create(a_run(namespace), manager="user")
        event = EventRecord("Warning", "Restarting", "The node is lost.")
        for times in (3, 1):  # the second process does not know of the first one's
            recorder = Recorder(cluster, identity="test")
            for _ in range(times):
                recorder.record(about, event)
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


def test_a_group_is_known_by_the_version_that_is_preferred(on_cluster: OnCluster, namespace: str) -> None:
    async def go(cluster: Cluster) -> list[str | None]:
        return [await cluster.preferred(group) for group in ("kindling.dev", "kueue.x-k8s.io")]

    assert on_cluster(go) == ["kindling.dev/v1alpha1", None]
