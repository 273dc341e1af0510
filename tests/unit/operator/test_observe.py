"""What is seen of a document: its own children and nobody else's, and the documents that it refers to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient, Configuration

from kindling_api.references import Reference
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.cache import Cache
from kindling_operator.cluster import Cluster
from kindling_operator.observe import Observer
from kindling_operator.polling import Heard
from kindling_operator.settings import Images, Settings
from kindling_operator.world import World

Object = dict[str, Any]

TINY = Reference("PretrainRun", "team", "tiny")
BOOKS = Reference("DatasetBuild", "team", "books")
DEFAULT = StorageSpec(uri="s3://default/store", credentials_secret="s3")
SETTINGS = Settings(images=Images(trainer="trainer", dataprep="dataprep", serve="serve"), storage=DEFAULT)
ELSEWHERE = {"uri": "s3://other/store", "endpoint": "http://other:9000"}
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
        TINY, {"dataset": {"name": "books"}, "model": {"preset": "llama-124m"}, "training": training}, **status
    )


def books(**changes: Any) -> Object:
    status = changes.pop("status", {})
    return document(BOOKS, {"sources": [{"uri": "builtin:python-stdlib"}], **changes}, **status)


def child(kind: str, name: str, owner: tuple[str, str, str], **parts: Any) -> Object:
    labels = {"kindling.dev/kind": "PretrainRun", "kindling.dev/name": "tiny", "kindling.dev/attempt": "1"}
    owners = [dict(zip(("kind", "name", "uid"), owner, strict=True))]
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": "1", "labels": labels}
    metadata |= {"ownerReferences": owners, "creationTimestamp": "2026-01-01T00:00:00Z"}
    api_version = {"Job": "batch/v1", "Pod": "v1", "RayJob": "ray.io/v1"}[kind]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": {}, **parts}


def observer(*items: Object, heard: dict[Reference, Heard] | None = None) -> tuple[Observer, Cache]:
    """With a connection that nothing here makes use of."""
    cache = Cache(lambda reference: None)
    for item in items:
        cache.saw(item)
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:9"
    return Observer(SETTINGS, Cluster(ApiClient(configuration)), cache, heard or {}), cache


def seen(*items: Object, heard: dict[Reference, Heard] | None = None) -> World:
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
    heard = {TINY: Heard(1, Progress(message="training"), datetime.now(UTC))}
    world = seen(run(attempt=attempt), heard=heard)
    assert (world.progress is not None) is counts


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
