"""Namespaces that go, come back, or may not be read: what is said of them, and what is done there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from kindling_operator import namespaces as module
from kindling_operator.cache import ObjectCache
from kindling_operator.cluster import ClusterError
from kindling_operator.metrics import NAMESPACE_WATCHED
from kindling_operator.namespaces import Namespaces
from kindling_operator.policies.retention import FINALIZER
from kindling_operator.world import Object, ObjectKey

HERE: Object = {"metadata": {"name": "team"}}
GOING: Object = {"metadata": {"name": "team", "deletionTimestamp": "2026-05-01T12:00:00Z"}}


class ApiServer:
    """One namespace, and the documents in it."""

    def __init__(self, namespace: Object | None = HERE) -> None:
        self.namespace = namespace
        self.role = True
        self.may_see_namespaces = True
        self.down = False
        self.refusal: ClusterError | None = None
        self.documents: list[Object] = []
        self.patched: list[tuple[ObjectKey, Object]] = []

    async def get(self, key: ObjectKey) -> Object | None:
        assert (key.kind, key.name) == ("Namespace", "team")
        if self.down:
            raise ClusterError(0, "Unreachable", "no answer")
        if not self.may_see_namespaces:
            raise ClusterError(403, "Forbidden", "may not")
        return self.namespace

    async def list(self, api_version: str, kind: str, namespace: str, **_: str) -> AsyncIterator[Object]:
        if kind == "Job" and not self.role:
            raise ClusterError(403, "Forbidden", "may not")
        for document in self.documents:
            if document["kind"] == kind:
                yield document

    async def merge(self, key: ObjectKey, patch: Object, *, manager: str) -> Object:
        if self.refusal is not None:
            raise self.refusal
        self.patched.append((key, patch))
        return {}


def document(name: str, *finalizers: str, kind: str = "PretrainRun") -> Object:
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": "7", "finalizers": list(finalizers)}
    status = {"storage": {"uri": "s3://llm"}}
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": kind, "metadata": metadata, "status": status}


def watching(server: ApiServer, *names: str) -> tuple[Namespaces, ObjectCache]:
    cache = ObjectCache(lambda reference: None)
    return Namespaces(server, cache, names), cache  # type: ignore[arg-type]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"namespace": None}, "there is no namespace team"),
        ({"namespace": GOING}, "the namespace team is being deleted"),
        ({"role": False}, "in the namespace team nothing may be read"),
        ({"role": False, "may_see_namespaces": False}, "in the namespace team nothing may be read"),
    ],
    ids=["gone", "going", "without a Role", "without any right"],
)
def test_a_namespace_that_cannot_be_watched_is_said_once_and_watched_again_once_it_can(
    changes: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = ApiServer()
    namespaces, _ = watching(server, "team")

    async def go() -> None:
        await namespaces.look()
        assert namespaces.readable() == ("team",)
        vars(server).update(changes)
        for _ in range(3):
            await namespaces.look()
            assert namespaces.readable() == ()
        assert NAMESPACE_WATCHED.labels("team")._value.get() == 0
        vars(server).update(namespace=HERE, role=True, may_see_namespaces=True)
        await namespaces.look()
        assert namespaces.readable() == ("team",)
        assert NAMESPACE_WATCHED.labels("team")._value.get() == 1

    asyncio.run(go())
    assert len(said(caplog)) == 1 and said(caplog)[0].startswith(words)


def test_documents_in_a_namespace_that_goes_are_let_go_without_any_role(caplog: pytest.LogCaptureFixture) -> None:
    server = ApiServer(GOING)
    server.role = False
    server.documents = [
        document("held", "example.com/other", FINALIZER),
        document("free"),
        document("build", FINALIZER, kind="DatasetBuild"),
    ]
    namespaces, _ = watching(server, "team")
    asyncio.run(namespaces.look())
    assert {key.name: patch["metadata"] for key, patch in server.patched} == {
        "held": {"finalizers": ["example.com/other"], "resourceVersion": "7"},
        "build": {"finalizers": [], "resourceVersion": "7"},
    }
    assert "PretrainRun/team/held goes with its namespace; its data stays in s3://llm" in said(caplog)


@pytest.mark.parametrize(("status", "times"), [(403, 1), (404, 0), (409, 0)])
def test_a_document_that_cannot_be_let_go_is_told_of_once_and_tried_again(
    status: int, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = ApiServer(GOING)
    server.documents, server.refusal = [document("held", FINALIZER)], ClusterError(status, "Reason", "may not")
    namespaces, _ = watching(server, "team")
    for _ in range(3):
        asyncio.run(namespaces.look())
    assert sum("a PretrainRun cannot be let go with its namespace" in line for line in said(caplog)) == times
    server.refusal = None
    asyncio.run(namespaces.look())
    assert [key.name for key, _ in server.patched] == ["held"]


def test_all_of_the_cluster_is_one_scope_of_which_nothing_is_asked() -> None:
    namespaces, _ = watching(ApiServer(None))
    asyncio.run(namespaces.look())
    assert namespaces.readable() == ("",)


def test_what_is_watched_follows_the_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.01)
    server = ApiServer(None)
    namespaces, cache = watching(server, "team")
    came: list[str] = []
    watched: list[tuple[str, ...]] = []

    async def comes(name: str) -> None:
        came.append(name)
        if len(came) == 1:
            raise ClusterError(0, "Unreachable", "no answer")
        cache.saw(document("tiny"))

    async def watch(names: Sequence[str]) -> None:
        if not watched or watched[-1] != tuple(names):
            watched.append(tuple(names))

    async def until(ready: Any) -> None:
        while not ready():
            await asyncio.sleep(0.01)

    async def go() -> None:
        await namespaces.look()
        keeping = asyncio.create_task(namespaces.keep(comes, watch))
        await until(lambda: watched == [()])
        server.namespace = HERE
        await until(lambda: watched == [(), ("team",)])
        assert came == ["team", "team"], "it is read before it is watched, and again where that failed"
        server.down = True
        await asyncio.sleep(0.05)
        assert len(watched) == 2 and list(cache.documents()), "an API server that is away takes no namespace with it"
        server.down, server.namespace = False, GOING
        await until(lambda: watched == [(), ("team",), ()])
        await until(lambda: not list(cache.documents()))
        keeping.cancel()

    asyncio.run(asyncio.wait_for(go(), 20))
