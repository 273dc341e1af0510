"""Carrying out a plan where the API server refuses a part of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kindling_operator.apply import Applier
from kindling_operator.cache import ObjectCache
from kindling_operator.children import key_of_object
from kindling_operator.cluster import ClusterError, _refused
from kindling_operator.labels import UID
from kindling_operator.policies.retention import FINALIZER, finalizers_patch
from kindling_operator.world import NAMESPACE_GOES, Object, ObjectKey, Plan


def document(*finalizers: str, uid: str = "1") -> Object:
    metadata = {"name": "tiny", "namespace": "team", "uid": uid, "resourceVersion": "1", "finalizers": list(finalizers)}
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": "PretrainRun", "metadata": metadata, "status": {}}


class Refusing:
    """An API server that takes no status, and no new object."""

    def __init__(self, status: int = 403) -> None:
        self.error = ClusterError(status, "Forbidden", "may not")
        self.merged: list[Object] = []

    async def apply(self, item: Object, **_: str) -> Object:
        raise self.error

    async def create(self, item: Object, **_: str) -> Object:
        raise ClusterError(403, NAMESPACE_GOES, "is being terminated")

    async def get(self, key: ObjectKey) -> Object | None:
        return None

    async def merge(self, key: ObjectKey, patch: Object, **_: str) -> Object:
        self.merged.append(patch)
        return document()


def apply(server: Refusing, plan: Plan, resource: Object) -> dict[Any, Object]:
    refused: dict[Any, Object] = {}
    applier = Applier(server, ObjectCache(lambda reference: None), None, refused)  # type: ignore[arg-type]
    try:
        asyncio.run(applier.apply(resource, plan))
    except ClusterError as error:
        refused["error"] = {"status": error.status}
    return refused


@pytest.mark.parametrize(
    ("before", "after", "status", "done"),
    [
        ([FINALIZER], [], 403, True),
        ([FINALIZER, "example.com/other"], ["example.com/other"], 403, True),
        ([], [FINALIZER], 403, False),
        ([FINALIZER], [], 409, False),
    ],
    ids=["let go", "let go by us", "held", "a status that somebody else has changed"],
)
def test_a_status_that_may_not_be_written_keeps_no_document(
    before: list[str], after: list[str], status: int, done: bool
) -> None:
    server, resource = Refusing(status), document(*before)
    plan = Plan(status={"phase": "Running"}, change=(finalizers_patch(resource, after),))
    assert ("error" in apply(server, plan, resource)) is not done
    assert [patch["metadata"]["finalizers"] for patch in server.merged] == ([after] if done else [])


@pytest.mark.parametrize(("status", "passes"), [(403, False), (404, True), (409, False), (500, False)])
def test_of_refused_changes_that_of_a_document_that_is_gone_alone_is_no_failure(status: int, passes: bool) -> None:
    server, resource = Refusing(), document(FINALIZER)

    async def merge(key: ObjectKey, patch: Object, **_: str) -> Object:
        raise ClusterError(status, "Reason", "said")

    server.merge = merge  # type: ignore[method-assign]
    plan = Plan(status={}, change=(finalizers_patch(resource, []),))
    assert apply(server, plan, resource) == ({} if passes else {"error": {"status": status}})


class Taking(Refusing):
    """An API server that takes all."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    async def apply(self, item: Object, **_: str) -> Object:
        self.written.append(item["kind"])
        return item

    create = apply

    async def merge(self, key: ObjectKey, patch: Object, **_: str) -> Object:
        changed = document()
        return {**changed, "metadata": {**changed["metadata"], "resourceVersion": "2"}}


@pytest.mark.parametrize("another", ["0", "2"])
def test_what_is_as_it_was_written_is_written_again_only_for_another_document_of_the_name(another: str) -> None:
    metadata = {"namespace": "team", "name": "tiny"}
    service, run_file = ({"apiVersion": "v1", "kind": kind, "metadata": metadata} for kind in ("Service", "ConfigMap"))
    plan, server = Plan(status={}, apply=(service,), create=(run_file,)), Taking()
    applier = Applier(server, ObjectCache(lambda reference: None), None, {})  # type: ignore[arg-type]
    for _ in range(3):
        asyncio.run(applier.apply(document(), plan))
    assert server.written == ["Service", "ConfigMap"]
    asyncio.run(applier.apply(document(uid=another), plan))
    assert server.written == ["Service", "ConfigMap"] * 2


class Keeping(Refusing):
    """An API server that has one object, until it is deleted."""

    def __init__(self, there: Object) -> None:
        super().__init__()
        self.there: Object | None = there

    async def get(self, key: ObjectKey) -> Object | None:
        return self.there

    async def delete(self, key: ObjectKey, *, uid: str) -> None:
        assert self.there is not None and uid == self.there["metadata"]["uid"]
        self.there = None


@pytest.mark.parametrize(
    ("whose", "goes"),
    [
        ({"ownerReferences": [{"uid": "1"}]}, True),
        ({"labels": {UID: "1"}}, True),
        ({"ownerReferences": [{"uid": "0"}]}, False),
        ({"labels": {UID: "0"}}, False),
        ({"labels": {UID: "1"}, "ownerReferences": [{"uid": "0"}]}, False),
        ({}, False),
    ],
    ids=["owned", "labelled", "another's", "with another's label", "another's, with our label", "nobody's"],
)
def test_nothing_is_deleted_but_what_is_the_documents_own(whose: Object, goes: bool) -> None:
    metadata = {"namespace": "team", "name": "tiny-ptr-1-delete", "uid": "9", **whose}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata}
    server = Keeping(job)
    resource, plan = document(uid="1"), Plan(status={}, delete=(key_of_object(job),))
    asyncio.run(Applier(server, ObjectCache(lambda reference: None), None, {}).apply(resource, plan))  # type: ignore[arg-type]
    assert (server.there is None) == goes


def test_a_document_is_known_as_it_was_changed_before_the_watch_shows_it() -> None:
    cache = ObjectCache(lambda reference: None)
    resource = document(FINALIZER)
    cache.saw(resource)
    plan = Plan(status={}, change=(finalizers_patch(resource, []),))
    asyncio.run(Applier(Taking(), cache, None, {}).apply(resource, plan))  # type: ignore[arg-type]
    assert cache.version(key_of_object(resource)) == 2


def test_a_namespace_that_takes_nothing_new_is_remembered_as_such() -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "team", "name": "tiny-ptr-delete"}}
    resource = document(FINALIZER)
    refused = apply(Refusing(), Plan(status={}, create=(job,)), resource)
    (event,) = [item for item in refused.values() if "reason" in item]
    assert (event["reason"], event["involvedObject"]["name"]) == (NAMESPACE_GOES, key_of_object(job).name)


def test_the_cause_of_a_refusal_is_told_from_others() -> None:
    said = b'{"reason": "Forbidden", "message": "m", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}'
    assert _refused(403, said).reason == NAMESPACE_GOES
    assert _refused(403, b'{"reason": "Forbidden", "message": "m"}').reason == "Forbidden"


@pytest.mark.parametrize(
    ("status", "remembered"), [(399, False), (400, True), (403, True), (422, True), (429, False), (500, False)]
)
def test_what_is_refused_for_good_is_remembered_and_what_is_for_now_is_not(status: int, remembered: bool) -> None:
    server = Refusing()
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "team", "name": "tiny-ptr-1"}}

    async def create(item: Object, **_: str) -> Object:
        raise ClusterError(status, "Reason", "said")

    server.create = create  # type: ignore[method-assign]
    refused = apply(server, Plan(status={}, create=(job,)), document())
    assert refused.pop("error") == {"status": status}
    assert bool(refused) is remembered


@pytest.mark.parametrize(
    ("key", "version"), [(key_of_object(document()), "2"), (ObjectKey("v1", "Pod", "team", "tiny"), "1")]
)
def test_the_status_that_was_just_written_is_no_change_by_somebody_else(key: ObjectKey, version: str) -> None:
    server, resource = Refusing(), document()

    async def written(item: Object, **_: str) -> Object:
        return {**item, "metadata": {**item["metadata"], "resourceVersion": "2"}}

    server.apply = written  # type: ignore[method-assign]
    patch = {"metadata": {"labels": {"a": "b"}, "resourceVersion": "1"}}
    assert apply(server, Plan(status={"phase": "Running"}, change=((key, patch),)), resource) == {}
    assert [patch["metadata"]["resourceVersion"] for patch in server.merged] == [version]
