"""The queue: one worker a key, nothing lost, failures later and later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kindling_operator.cluster import ClusterError, NotWritableError
from kindling_operator.queue import FIRST_BACKOFF, Queue

Work = Callable[[str], Awaitable[float | None]]


def drain(work: Work, *keys: str, workers: int = 2, seconds: float = 0.3) -> Queue[str]:
    """Add the keys, work for a moment, and stop."""

    async def go() -> Queue[str]:
        queue = Queue(work, workers=workers)
        for key in keys:
            queue.add(key)
        running = asyncio.create_task(queue.run())
        done, _ = await asyncio.wait({running}, timeout=seconds)
        running.cancel()
        for task in done:
            task.result()
        return queue

    return asyncio.run(go())


def test_a_key_that_waits_is_not_added_again() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)

    drain(work, "a", "b", "a", "a", workers=1)
    assert seen == ["a", "b"]


def test_a_key_is_worked_on_by_one_worker_at_a_time_and_once_more_if_it_was_added_meanwhile() -> None:
    seen: list[str] = []
    at_it = 0

    async def go() -> None:
        async def work(key: str) -> None:
            nonlocal at_it
            at_it += 1
            assert at_it == 1
            seen.append(key)
            if len(seen) == 1:
                queue.add(key)
                queue.add(key)
            await asyncio.sleep(0.02)
            at_it -= 1

        queue = Queue(work, workers=4)
        queue.add("a")
        await asyncio.wait({asyncio.create_task(queue.run())}, timeout=0.2)

    asyncio.run(go())
    assert seen == ["a", "a"]


def test_keys_are_worked_on_side_by_side_up_to_the_number_of_workers() -> None:
    at_it = most = 0

    async def work(key: str) -> None:
        nonlocal at_it, most
        at_it += 1
        most = max(most, at_it)
        await asyncio.sleep(0.02)
        at_it -= 1

    drain(work, *"abcdefgh", workers=3)
    assert most == 3


@pytest.mark.parametrize("error", [ClusterError(500, "InternalError", "try again"), ValueError("a fault of ours")])
def test_a_failure_is_repeated_after_a_growing_delay_and_traced_where_it_is_ours(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    times: list[float] = []

    async def work(key: str) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 3:
            raise error

    queue = drain(work, "a", seconds=1.0)
    assert len(times) == 3
    assert times[1] - times[0] > 0.7 * FIRST_BACKOFF
    assert times[2] - times[1] > 1.4 * FIRST_BACKOFF
    assert queue.errors == 2
    assert [bool(record.exc_info) for record in caplog.records] == [isinstance(error, ValueError)] * 2


def test_a_failing_key_does_not_hold_up_the_others() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)
        if key == "bad":
            raise ClusterError(422, "Invalid", "no")

    drain(work, "bad", "good", "better", workers=1)
    assert {"good", "better"} <= set(seen)


def test_a_refused_write_without_leadership_ends_the_queue() -> None:
    async def work(key: str) -> None:
        raise NotWritableError("this process does not lead")

    with pytest.raises(ExceptionGroup) as raised:
        drain(work, "a")
    assert raised.group_contains(NotWritableError)


def test_a_key_comes_back_when_work_says_so_and_the_earlier_of_two_dates_holds() -> None:
    times: list[float] = []

    async def go() -> None:
        async def work(key: str) -> float | None:
            times.append(asyncio.get_running_loop().time())
            return 0.1 if len(times) == 1 else None

        queue = Queue(work, workers=1)
        queue.add("a")
        running = asyncio.create_task(queue.run())
        await asyncio.sleep(0.02)
        queue.add_after("a", 30.0)  # later than what work said: of no effect
        await asyncio.wait({running}, timeout=0.3)

    asyncio.run(go())
    assert len(times) == 2
    assert 0.09 < times[1] - times[0] < 0.25


def test_adding_a_key_brings_its_date_forward() -> None:
    seen: list[str] = []

    async def go() -> None:
        async def work(key: str) -> None:
            seen.append(key)

        queue = Queue(work, workers=1)
        queue.add_after("a", 30.0)
        queue.add("a")
        await asyncio.wait({asyncio.create_task(queue.run())}, timeout=0.05)

    asyncio.run(go())
    assert seen == ["a"]


def test_a_queue_is_stuck_only_while_there_is_something_to_do() -> None:
    async def go() -> tuple[float, float]:
        async def work(key: str) -> None:
            await asyncio.sleep(30)

        queue = Queue(work, workers=1)
        running = asyncio.create_task(queue.run())
        await asyncio.sleep(0.1)
        idle = queue.stuck_seconds()
        queue.add("a")
        await asyncio.wait({running}, timeout=0.1)
        return idle, queue.stuck_seconds()

    idle, stuck = asyncio.run(go())
    assert idle == 0.0
    assert 0.09 < stuck < 1.0
