"""What is seen of a document: its own children and nobody else's, and the documents that it refers to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient, Configuration

from kindling_api.references import Reference
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.cache import ObjectCache
from kindling_operator.cluster import Cluster
from kindling_operator.observe import Observer
from kindling_operator.polling import Heard
from kindling_operator.settings import Images, Settings
from kindling_operator.world import ObjectKey, World

Object = dict[str, Any]

TINY = Reference("PretrainRun", "team", "tiny")
BOOKS = Reference("DatasetBuild", "team", "books")
DEFAULT = StorageSpec(uri="s3://default/store", credentials_secret="s3")
SETTINGS = Settings(images=Images(trainer="trainer", dataprep="dataprep", serve="serve"), storage=DEFAULT)
ELSEWHERE = {"uri": "s3://other/store", "endpoint": "http://other:9000"}
PRODUCT = "datasets/0123456789abcdef"
RESULT = {"uri": "s3://default/store/books", "digest": f"sha256:{0:064}"}


def document(reference: Reference, spec: Object, uid: str = "", **status: Any) -> Object:
    metadata = {"name": reference.name, "namespace": "team", "generation": 1, "resourceVersion": "1"}
    metadata["uid"] = uid or reference.name
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": reference.kind} | {
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }


def run(**status: Any) -> Object:
    training = {"steps": 10, "batch": {"tokens": 65536}}
    return document(
        TINY,
        {"dataset": {"name": "books"}, "model": {"preset": "llama-124m"}, "training": training},
        **{"storage": DEFAULT.document(), **status},
    )


def books(**changes: Any) -> Object:
    status = changes.pop("status", {})
    return document(BOOKS, {"sources": [{"uri": "builtin:python-stdlib"}], **changes}, **status)


def child(kind: str, name: str, owner: tuple[str, str, str], **parts: Any) -> Object:
    labels = {"kindling.dev/kind": "PretrainRun", "kindling.dev/name": "tiny", "kindling.dev/attempt": "1"}
    owners = [dict(zip(("kind", "name", "uid"), owner, strict=True))]
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": "1", "labels": labels}
    metadata |= {"ownerReferences": owners, "creationTimestamp": "2026-01-01T00:00:00Z"}
    api_version = {"Job": "batch/v1", "Pod": "v1", "RayJob": "ray.io/v1", "Deployment": "apps/v1"}[kind]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": {}, **parts}


def observer(*items: Object, heard: dict[str, Heard] | None = None) -> tuple[Observer, ObjectCache]:
    """With a connection that nothing here makes use of."""
    cache = ObjectCache(lambda reference: None)
    for item in items:
        cache.saw(item)
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:9"
    return Observer(SETTINGS, Cluster(ApiClient(configuration)), cache, heard or {}), cache


def seen(*items: Object, heard: dict[str, Heard] | None = None) -> World:
    async def go() -> World | None:
        return await observer(*items, heard=heard)[0].observe(TINY)

    world = asyncio.run(go())
    assert world is not None
    return world


def test_a_document_that_is_not_there_is_no_world() -> None:
    async def go() -> World | None:
        return await observer(books())[0].observe(TINY)

    assert asyncio.run(go()) is None


@pytest.mark.parametrize(
    ("status", "phase", "product"),
    [
        ({}, "Pending", False),
        ({"phase": "Running"}, "Running", False),
        ({"phase": "Succeeded", "result": RESULT}, "Succeeded", True),
    ],
)
def test_a_document_it_refers_to_is_seen_with_its_product_once_there_is_one(
    status: Object, phase: str, product: bool
) -> None:
    referred = seen(run(), books(status=status)).references[BOOKS]
    assert referred.phase == phase
    assert (referred.finished is not None) is product


def test_where_a_product_lies_is_told_if_it_is_not_where_the_run_keeps_its_own() -> None:
    status = {"phase": "Succeeded", "result": RESULT}
    same = seen(run(), books(status=status)).references[BOOKS].finished
    other = seen(run(), books(status=status, storage=ELSEWHERE)).references[BOOKS].finished
    assert same and same.storage is None
    assert other and other.storage == StorageSpec.model_validate(ELSEWHERE)


def test_a_product_is_reached_where_it_was_made_though_the_default_is_another_by_now() -> None:
    made = {"uri": "s3://before/store", "credentialsSecret": "old"}
    for status in ({"storage": made, "result": RESULT}, {"result": {**RESULT, "uri": f"{made['uri']}/{PRODUCT}"}}):
        found = seen(run(), books(status={"phase": "Succeeded", **status})).references[BOOKS].finished
        assert found and found.storage and found.storage.uri == made["uri"]


def test_a_run_that_keeps_to_an_earlier_default_is_told_how_to_reach_what_is_in_the_new_one() -> None:
    before = StorageSpec(uri="s3://before/store")
    referred = books(status={"phase": "Succeeded", "result": RESULT, "storage": DEFAULT.document()})
    found = seen(run(storage=before.document()), referred).references[BOOKS].finished
    assert found and found.storage == DEFAULT


def test_the_run_file_tells_the_storage_of_a_status_without_one() -> None:
    files: list[Any] = [{"data": {"run.json": json.dumps({"output": ELSEWHERE})}}, {"data": {}}, None]
    mine = {"ownerReferences": [{"kind": "PretrainRun", "name": "tiny", "uid": "tiny"}]}

    class Answering:
        def __init__(self, answer: Any) -> None:
            self.asked: list[ObjectKey] = []
            self._answer = answer and {**answer, "metadata": mine}

        async def get(self, key: ObjectKey) -> Any:
            self.asked.append(key)
            return self._answer

    async def written(answer: Any, **status: Any) -> tuple[StorageSpec | None, list[ObjectKey]]:
        job = child("Job", "tiny-ptr-1", ("PretrainRun", "tiny", "tiny"))
        watching, _ = observer(run(**status), job)
        watching._cluster = answering = Answering(answer)  # type: ignore[assignment]
        world = await watching.observe(TINY)
        assert world is not None
        return world.written, answering.asked

    told = [asyncio.run(written(file, storage=None)) for file in files]
    assert [storage for storage, _ in told] == [StorageSpec.model_validate(ELSEWHERE), None, None]
    assert [asked for _, asked in told] == [[ObjectKey("v1", "ConfigMap", "team", "tiny-ptr-1")]] * 3
    assert asyncio.run(written(files[0])) == (None, []), "it is not asked for where the status tells"


def test_the_pods_of_what_serves_and_of_the_clean_up_are_seen_apart() -> None:
    deployment = child("Deployment", "tiny-serve", ("PretrainRun", "tiny", "tiny"))
    cleanup = child("Job", "tiny-ptr-delete", ("Nobody", "nobody", "nobody"))
    cleanup["metadata"]["labels"] = {
        "kindling.dev/kind": "PretrainRun", "kindling.dev/name": "tiny", "kindling.dev/uid": "tiny"
    }  # fmt: skip
    del cleanup["metadata"]["ownerReferences"]
    pods = [
        child("Pod", "tiny-serve-5d-x", ("ReplicaSet", "tiny-serve-5d", "1")),
        child("Pod", "tiny-ptr-delete-x", ("Job", "tiny-ptr-delete", "tiny-ptr-delete")),
        child("Pod", "stranger", ("ReplicaSet", "others-5d", "2")),
        child("Pod", "another", ("Job", "tiny-ptr-delete", "another")),
    ]
    world = seen(run(), deployment, cleanup, *pods)
    assert {pod["metadata"]["name"] for pod in world.pods_beside} == {"tiny-serve-5d-x", "tiny-ptr-delete-x"}
    assert world.pods == ()


def test_why_it_failed_is_told_to_those_who_wait_for_it() -> None:
    condition = {"type": "Failed", "status": "True", "reason": "UserError", "message": "There is no text."}
    failed = books(status={"phase": "Failed", "conditions": [condition]})
    assert seen(run(), failed).references[BOOKS].message == "There is no text."


def test_a_document_that_is_refused_comes_with_the_sentence_that_says_why() -> None:
    wrong = run()
    wrong["spec"]["training"] = {"steps": -1}
    world = seen(wrong)
    assert world.document is None
    assert world.refusal.startswith("spec.training.steps")


def test_children_of_an_earlier_document_of_the_name_and_of_strangers_are_not_its_own() -> None:
    mine = child("Job", "tiny-ptr-1", ("PretrainRun", "tiny", "tiny"))
    before = child("Job", "tiny-ptr-2", ("PretrainRun", "tiny", "an earlier one"))
    pods = [
        child("Pod", "tiny-ptr-1-0", ("Job", "tiny-ptr-1", "tiny-ptr-1"), status={"phase": "Running"}),
        child("Pod", "stranger", ("Job", "tiny-ptr-1", "another"), status={"phase": "Running"}),
    ]
    world = seen(run(), mine, before, *pods)
    assert [job["metadata"]["name"] for job in world.jobs] == ["tiny-ptr-1"]
    assert [pod["metadata"]["name"] for pod in world.pods] == ["tiny-ptr-1-0"]


def test_pods_that_kuberay_makes_for_a_ray_job_are_its_own() -> None:
    ray_job = child("RayJob", "tiny-dsb-1", ("DatasetBuild", "tiny", "tiny"), status={"jobDeploymentStatus": "Running"})
    pods = [
        child("Pod", "head", ("RayCluster", "tiny-dsb-1-x7k2p", "1"), status={"phase": "Running"}),
        child("Pod", "submitter", ("Job", "tiny-dsb-1", "2"), status={"phase": "Running"}),
        child("Pod", "stranger", ("RayCluster", "other-x7k2p", "3"), status={"phase": "Running"}),
    ]
    assert [pod["metadata"]["name"] for pod in seen(run(), ray_job, *pods).pods] == ["head", "submitter"]


@pytest.mark.parametrize(("attempt", "counts"), [(1, True), (2, False)])
def test_what_an_earlier_attempt_said_does_not_count(attempt: int, counts: bool) -> None:
    heard = {"tiny": Heard(1, Progress(message="training"), datetime.now(UTC), 0.0)}
    world = seen(run(attempt=attempt), heard=heard)
    assert (world.progress is not None) is counts


def test_what_a_document_said_that_had_the_name_before_does_not_count() -> None:
    heard = {"an earlier one": Heard(1, Progress(message="training"), datetime.now(UTC), 0.0)}
    assert seen(run(attempt=1), heard=heard).progress is None


def test_what_was_refused_to_a_document_that_had_the_name_before_is_forgotten_with_it() -> None:
    async def go() -> tuple[int, dict[str, Object]]:
        observing, cache = observer(run())
        assert await observing.observe(TINY)
        observing.refused["tiny"] = {"message": "exceeded quota"}
        again = run()
        again["metadata"] |= {"uid": "another", "resourceVersion": "2"}
        cache.saw(again)
        world = await observing.observe(TINY)
        assert world is not None
        return len(world.warnings), observing.refused

    assert asyncio.run(go()) == (0, {})


def test_a_job_that_cleans_up_is_known_by_the_uid_of_its_document_whatever_it_is_called() -> None:
    job = child("Job", "tiny-ptr-1", ("PretrainRun", "tiny", "tiny"))
    job["metadata"]["labels"]["kindling.dev/uid"] = "tiny"
    cleaning = [child("Job", name, ("", "", "")) for name in ("tiny-ptr-delete", "tiny-ptr-other-delete")]
    for item, uid in zip(cleaning, ("tiny", "an earlier one"), strict=True):
        del item["metadata"]["ownerReferences"]
        item["metadata"]["labels"] = {
            "kindling.dev/kind": "PretrainRun",
            "kindling.dev/name": "tiny",
            "kindling.dev/uid": uid,
        }
    world = seen(run(), job, *cleaning)
    assert world.cleanup and world.cleanup["metadata"]["name"] == "tiny-ptr-delete"
    assert [one["metadata"]["name"] for one in world.jobs] == ["tiny-ptr-1"]
    assert seen(run(), job, cleaning[1]).cleanup is None


def test_only_pods_of_its_own_are_asked_how_far_they_are() -> None:
    job = child("Job", "tiny-ptr-1", ("PretrainRun", "tiny", "tiny"))
    up = {"phase": "Running", "podIP": "10.0.0.7"}
    stranger = child("Pod", "stranger", ("Job", "other", "another"), status=up | {"podIP": "10.0.0.6"})
    pod = child("Pod", "tiny-ptr-1-0", ("Job", "tiny-ptr-1", "tiny-ptr-1"), status=up)

    async def go(*items: Object) -> list[str]:
        return [target.address for target in observer(*items)[0].targets()]

    assert asyncio.run(go(run(attempt=1), job, stranger, pod)) == ["10.0.0.7"]
    assert asyncio.run(go(run(attempt=1), job, stranger)) == []
    assert asyncio.run(go(run(attempt=1, phase="Succeeded"), job, pod)) == []


def test_kueue_is_looked_for_where_a_queue_is_asked_for_and_until_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, asked = iter([None, "kueue.x-k8s.io/v1beta2"]), []

    async def preferred(_: Cluster, group: str) -> str | None:
        asked.append(group)
        return next(answers)

    async def looks(*queues: str | None) -> list[bool]:
        watcher, cache = observer()
        found = []
        for generation, queue in enumerate(queues, 1):
            item = run()
            item["metadata"] |= {"generation": generation, "resourceVersion": str(generation)}
            item["spec"] |= {"queue": queue} if queue else {}
            cache.saw(item)
            world = await watcher.observe(TINY)
            assert world is not None and world.document is not None, world
            found.append(world.kueue_installed)
        return found

    monkeypatch.setattr(Cluster, "preferred", preferred)
    monkeypatch.setattr("kindling_operator.observe.CHECK_SECONDS", 0.0)
    assert asyncio.run(looks(None, "team-a", "team-a", "team-a")) == [True, False, True, True]
    assert asked == ["kueue.x-k8s.io"] * 2


def test_the_workload_of_a_job_is_looked_at_each_time_while_it_waits_and_now_and_then_while_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, str]] = []

    async def preferred(_: Cluster, group: str) -> str | None:
        return f"{group}/v1beta2"

    async def find(_: Cluster, version: str, kind: str, namespace: str, *, labels: str) -> AsyncIterator[Object]:
        asked.append((f"{version} {kind}", labels))
        yield {"metadata": {"name": "job-tiny"}}

    async def looks(*suspended: bool) -> list[bool]:
        item = run()
        item["spec"] |= {"queue": "team-a"}
        watcher, cache = observer(item)
        found = []
        for version, waits in enumerate(suspended, 1):
            job = child("Job", "tiny-ptr-1", ("PretrainRun", "tiny", "tiny"))
            job["metadata"]["resourceVersion"], job["spec"] = str(version), {"suspend": waits}
            cache.saw(job)
            world = await watcher.observe(TINY)
            found.append(world is not None and world.workload is not None)
        return found

    monkeypatch.setattr(Cluster, "preferred", preferred)
    monkeypatch.setattr(Cluster, "list", find)
    assert asyncio.run(looks(True, True, False, True, False)) == [True, True, False, True, False]
    assert asked == [("kueue.x-k8s.io/v1beta2 Workload", "kueue.x-k8s.io/job-uid=tiny-ptr-1")] * 3
    asked.clear()
    monkeypatch.setattr("kindling_operator.observe.WORKLOAD_SECONDS", 0.0)
    assert asyncio.run(looks(False, False)) == [True, True]
