"""Events are told once, counted when they come again, and never hold up anything."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from kindling_operator.cluster import ClusterError
from kindling_operator.events import Recorder
from kindling_operator.world import EventRecord, Object, ObjectKey

RUN: Object = {
    "apiVersion": "kindling.dev/v1alpha1",
    "kind": "PretrainRun",
    "metadata": {"name": "tiny", "namespace": "team", "uid": "1"},
}
STARTED = EventRecord(type="Normal", reason="Started", message="Attempt 1 runs.")
SAVED = EventRecord(type="Normal", reason="Checkpointed", message="The state after step 5 is committed.")


class Server:
    """An API server that keeps what it is told, or refuses it."""

    def __init__(self, refusal: ClusterError | None = None, gone: bool = False) -> None:
        self.refusal, self.gone = refusal, gone
        self.told: list[tuple[str, str, int]] = []

    async def create(self, item: Object, **_: str) -> Object:
        if self.refusal is not None:
            raise self.refusal
        self.told.append(("create", item["reason"], item["count"]))
        return item

    async def merge(self, key: ObjectKey, patch: Object, **_: str) -> Object:
        if self.gone:
            raise ClusterError(404, "NotFound", "it was kept for an hour")
        self.told.append(("merge", key.name.partition(".")[0], patch["count"]))
        return patch


def record(server: Server, *events: EventRecord) -> list[Any]:
    """All that reaches the server."""

    async def told() -> None:
        recorder = Recorder(server, identity="me")  # type: ignore[arg-type]
        for event in events:
            recorder.record(RUN, event)
        writing = asyncio.create_task(recorder.run())
        for _ in range(50):
            await asyncio.sleep(0)
        writing.cancel()

    asyncio.run(told())
    return server.told


@pytest.mark.parametrize(
    ("events", "gone", "told"),
    [
        ([STARTED, SAVED], False, [("create", "Started", 1), ("create", "Checkpointed", 1)]),
        ([STARTED, STARTED, STARTED], False, [("create", "Started", 1), ("merge", "tiny", 2), ("merge", "tiny", 3)]),
        ([STARTED, STARTED], True, [("create", "Started", 1), ("create", "Started", 1)]),
    ],
    ids=["two", "one that comes again", "one that comes again once the first is gone"],
)
def test_an_event_is_told_once_and_then_counted(events: list[EventRecord], gone: bool, told: list[Any]) -> None:
    assert record(Server(gone=gone), *events) == told


@pytest.mark.parametrize(("reason", "logged"), [("AlreadyExists", False), ("Forbidden", True)])
def test_an_event_that_is_not_taken_is_logged_unless_it_was_told_before(
    caplog: pytest.LogCaptureFixture, reason: str, logged: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        assert record(Server(ClusterError(409, reason, "no")), STARTED) == []
    assert ("the Event Started 'Attempt 1 runs.' was not written" in caplog.text) is logged
