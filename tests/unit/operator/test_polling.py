"""Asking running pods how far they are, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from kindling_api.references import Reference
from kindling_api.v1alpha1.runfile import Progress
from kindling_operator import polling
from kindling_operator.polling import Poller, Target, ask, target_of

TINY = Reference("PretrainRun", "team", "tiny")
GOOD = '{"state": "Running", "message": "training", "training": {"step": 7, "steps": 10, "loss": 2.5}}'

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def served(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> web.AppRunner:
    """A pod's progress server on this host."""
    application = web.Application()
    application.router.add_get("/progress", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setattr(polling, "PROGRESS_PORT", runner.addresses[0][1])
    return runner


def asked(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> Progress:
    async def go() -> Progress:
        runner = await served(answer, monkeypatch)
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
                return await ask(session, "127.0.0.1")
        finally:
            await runner.cleanup()

    return asyncio.run(go())


async def good(request: web.Request) -> web.Response:
    return web.Response(text=GOOD)


async def elsewhere(request: web.Request) -> web.Response:
    if request.query:
        return web.Response(text=GOOD)
    raise web.HTTPFound("/progress?again=1")


async def endless(request: web.Request) -> web.Response:
    return web.Response(text="x" * (polling.LARGEST_ANSWER + 1))


async def broken(request: web.Request) -> web.Response:
    raise web.HTTPInternalServerError


async def other(request: web.Request) -> web.Response:
    return web.Response(text='{"state": "Sleeping"}')


async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(5)
    return web.Response(text=GOOD)


def test_a_process_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = asked(good, monkeypatch)
    assert progress.training is not None
    assert (progress.training.step, progress.training.loss) == (7, 2.5)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (elsewhere, ValueError, "status 302"),
        (endless, ValueError, "more than 65536 bytes"),
        (broken, ValueError, "status 500"),
        (other, ValueError, "not a progress document"),
        (slow, TimeoutError, "^$"),
    ],
)
@pytest.mark.slow
def test_an_answer_that_is_none_is_refused_and_a_redirect_is_not_followed(
    answer: Answer, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(error, match=said):
        asked(answer, monkeypatch)


def test_news_are_passed_on_once_and_forgotten_when_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "EVERY_SECONDS", 0.05)
    told: list[Reference] = []
    targets = [Target(TINY, "uid-1", 1, "127.0.0.1")]

    async def go() -> tuple[dict[str, polling.Heard], Poller]:
        runner = await served(good, monkeypatch)
        poller = Poller(lambda: targets, told.append)
        running = asyncio.create_task(poller.run())
        await asyncio.sleep(0.6)
        heard = dict(poller.heard)
        targets.clear()
        await asyncio.sleep(0.2)
        running.cancel()
        await runner.cleanup()
        return heard, poller

    heard, poller = asyncio.run(go())
    assert heard["uid-1"].attempt == 1
    assert told == [TINY]
    assert poller.heard == {}


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ({}, True),
        ({"uid": "uid-1", "attempt": 1}, True),
        ({"uid": "uid-0", "attempt": 1}, False),
        ({"uid": "uid-1", "attempt": 2}, False),
    ],
    ids=["an image that does not say whose it is", "its own", "another document's", "another attempt's"],
)
def test_what_has_come_to_have_the_address_of_a_pod_is_not_taken_for_it(
    said: dict[str, Any], counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "EVERY_SECONDS", 0.05)

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"message": "training", **said})

    async def go() -> Poller:
        runner = await served(answer, monkeypatch)
        poller = Poller(lambda: [Target(TINY, "uid-1", 1, "127.0.0.1")], lambda reference: None)
        running = asyncio.create_task(poller.run())
        await asyncio.sleep(0.5)
        running.cancel()
        await runner.cleanup()
        return poller

    assert ("uid-1" in asyncio.run(go()).heard) is counts


@pytest.mark.slow
def test_news_of_many_runs_are_passed_on_no_faster_than_statuses_may_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Reference] = []
    many = [
        Target(Reference("PretrainRun", "team", f"run-{number}"), f"uid-{number}", 1, "127.0.0.1")
        for number in range(40)
    ]
    monkeypatch.setattr(polling, "EVERY_SECONDS", 0.2)
    monkeypatch.setattr(polling, "MOST_A_SECOND", 1000)

    async def go() -> Poller:
        runner = await served(good, monkeypatch)
        poller = Poller(lambda: many, told.append)
        running = asyncio.create_task(poller.run())
        await asyncio.sleep(1.5)
        running.cancel()
        await runner.cleanup()
        return poller

    assert len(asyncio.run(go()).heard) == 40
    assert 0 < len(told) <= 1.5 * polling.NEWS_A_SECOND
    assert len(set(told)) == len(told), "each in its turn"


INDEX = "batch.kubernetes.io/job-completion-index"


def pod(index: str | None, attempt: str = "1", phase: str = "Running", **metadata: Any) -> dict[str, Any]:
    labels = {"kindling.dev/attempt": attempt}
    if index is not None:
        labels[INDEX] = index
    labels |= metadata.pop("labels", {})
    return {"metadata": {"name": "pod", "labels": labels, **metadata}, "status": {"phase": phase, "podIP": "10.0.0.7"}}


@pytest.mark.parametrize(
    ("pods", "address"),
    [
        pytest.param([pod("1"), pod("0")], "10.0.0.7", id="rank 0's pod of a training run"),
        pytest.param([pod("1")], None, id="not another one's"),
        pytest.param([pod(None, annotations={INDEX: "1"})], None, id="nor where the annotation alone says so"),
        pytest.param([pod(None)], "10.0.0.7", id="the only pod of a build"),
        pytest.param([pod(None, labels={"ray.io/node-type": "head"})], None, id="not a node of Ray"),
        pytest.param([pod("0", attempt="2")], None, id="not one of another attempt"),
        pytest.param([pod("0", phase="Pending")], None, id="not one that does not run"),
        pytest.param([pod("0", deletionTimestamp="2026-01-01T00:00:00Z")], None, id="not one that is going"),
    ],
)
def test_the_pod_that_speaks_for_an_attempt_is_asked(pods: list[dict[str, Any]], address: str | None) -> None:
    target = target_of(TINY, "uid-1", 1, pods)
    assert (target.address if target else None) == address
