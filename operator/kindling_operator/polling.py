"""Asking running pods how far they are: `GET http://<pod address>:8090/progress`, and nothing else of anybody.

The address is a pod's own, as the API server reports it, and the pod is one that the run's Job owns. What a user writes
never becomes an address here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
from pydantic import ValidationError

from kindling_api.references import Reference
from kindling_api.v1alpha1.runfile import PROGRESS_PORT, Progress
from kindling_operator.labels import attempt_of
from kindling_operator.pods import is_running, reporter
from kindling_operator.world import Object

EVERY_SECONDS = 3.0
MOST_AT_ONCE = 32
MOST_A_SECOND = 100.0
"""With more runs than this allows for, each is asked less often."""
TIMEOUT_SECONDS = 2.0
LARGEST_ANSWER = 64 * 1024

NEWS_A_SECOND = 10.0
"""How many runs at most are looked at again in a second, of all, because of progress: each is a write of its status."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Heard:
    """What a run said of itself."""

    attempt: int
    progress: Progress
    at: datetime
    since: float
    """Since when it has said this and nothing else (monotonic clock)."""


@dataclass(frozen=True)
class Target:
    """Whom to ask."""

    reference: Reference
    uid: str
    """Of the document: another one may come to have its name."""
    attempt: int
    address: str

    def is_of(self, progress: Progress) -> bool:
        """Whether it is this attempt that says so, and not what has come to have its address."""
        return progress.uid in (None, self.uid) and progress.attempt in (None, self.attempt)


class Poller:
    """Asks all running runs in turn, and passes on who has news."""

    def __init__(self, targets: Callable[[], Iterable[Target]], notify: Callable[[Reference], None]) -> None:
        self.heard: dict[str, Heard] = {}
        """The newest of each run, by its document's UID; those that do not run any more are dropped."""
        self._targets = targets
        self._notify = notify
        self._news: OrderedDict[Reference, None] = OrderedDict()
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)

    async def run(self) -> None:
        """Ask until cancelled."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        connector = aiohttp.TCPConnector(limit=MOST_AT_ONCE, force_close=True)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False) as session,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._pass_on())
            while True:
                targets = list(self._targets())
                self._drop_others(targets)
                seconds = max(EVERY_SECONDS, len(targets) / MOST_A_SECOND)
                for target in targets:
                    group.create_task(self._ask(session, target, delay=random.uniform(0, seconds / 2)))
                await asyncio.sleep(seconds)

    async def _ask(self, session: aiohttp.ClientSession, target: Target, delay: float) -> None:
        await asyncio.sleep(delay)
        async with self._slots:
            try:
                progress = await ask(session, target.address)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                log.debug("%s at %s does not say how far it is: %s", target.reference, target.address, error)
                return
        if not target.is_of(progress):
            log.debug("at the address of %s, %s, another answers: %s", target.reference, target.address, progress.uid)
            return
        before = self.heard.get(target.uid)
        is_new = before is None or (before.attempt, before.progress) != (target.attempt, progress)
        since = time.monotonic() if before is None or is_new else before.since
        self.heard[target.uid] = Heard(target.attempt, progress, datetime.now(UTC), since)
        if is_new:
            self._news.setdefault(target.reference)

    async def _pass_on(self) -> None:
        """Pass on who has news, the longest waiting first, at the pace that the API server is to be written at."""
        while True:
            await asyncio.sleep(1 / NEWS_A_SECOND)
            if self._news:
                self._notify(self._news.popitem(last=False)[0])

    def _drop_others(self, targets: Iterable[Target]) -> None:
        running = {target.uid for target in targets}
        for uid in self.heard.keys() - running:
            del self.heard[uid]


async def ask(session: aiohttp.ClientSession, address: str) -> Progress:
    """The progress of the process at `address`.

    Raises:
        aiohttp.ClientError, OSError, TimeoutError: it does not answer.
        ValueError: it answers with something else.
    """
    host = f"[{address}]" if ":" in address else address
    async with session.get(f"http://{host}:{PROGRESS_PORT}/progress", allow_redirects=False) as answer:
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        data = await answer.content.read(LARGEST_ANSWER + 1)
        while len(data) <= LARGEST_ANSWER and (more := await answer.content.read(LARGEST_ANSWER + 1 - len(data))):
            data += more
    if len(data) > LARGEST_ANSWER:
        raise ValueError(f"more than {LARGEST_ANSWER} bytes")
    try:
        return Progress.model_validate_json(data)
    except ValidationError as error:
        raise ValueError(f"not a progress document: {error.error_count()} errors") from None


def target_of(reference: Reference, uid: str, attempt: int, pods: Iterable[Object]) -> Target | None:
    """The pod that speaks for the attempt; None while it is not up."""
    pod = reporter(pod for pod in pods if attempt_of(pod) == attempt)
    address = pod["status"].get("podIP") if pod and is_running(pod) else None
    return Target(reference, uid, attempt, address) if address else None
