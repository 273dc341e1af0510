"""One thread that continues the texts of all requests together; requests meet it on the event loop.

A text waits in line until one of the slots is free, and leaves its slot as soon as it is done or nobody wants it any
more. What is added to it lies in its request's own queue, which cannot grow beyond what the request may generate, so
a client that reads slowly holds up nobody.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from kindling_trainer.inference.batching import Chosen, DecodingBatch, Row
from kindling_trainer.inference.prefixes import PrefixCache
from kindling_trainer.inference.sampling import GenerationOptions
from kindling_trainer.models import Decoder

End = Literal["stop", "length", "error"]

log = logging.getLogger(__name__)


class Busy(Exception):
    """The queue is full: as many texts wait as may."""


@dataclass(frozen=True)
class Task:
    """A text to be continued."""

    tokens: Sequence[int]
    """One or more."""
    options: GenerationOptions
    stops: frozenset[int] = frozenset()
    """Tokens that end it, and are no part of it."""
    likeliest: int = 0
    """How many of the likeliest tokens are told with each one."""
    score_prompt: bool = False
    """Whether what the model thought of each token of the prompt is told, too."""
    only_read: bool = False
    """Nothing is added: the prompt is scored."""


@dataclass(frozen=True)
class Event:
    """What has become of one text of a request."""

    number: int
    """Which one, from 0."""
    chosen: Chosen | None
    """What was added; a stop token is not told."""
    end: End | None = None
    """Why nothing more will be added."""
    prompt: Sequence[Chosen] = ()
    """With the first event, where it was asked for: the prompt's tokens but the first."""


@dataclass(eq=False)
class _Text:
    """One text of a request on its way through the engine."""

    session: Session
    number: int
    task: Task
    added: int = 0
    unwanted: bool = False
    """Set on the event loop, read in the engine's thread."""


TextEvent = tuple[_Text, Event]


class Session:
    """The texts of one request; its end, or leaving its `with`, frees their slots."""

    def __init__(self, engine: GenerationEngine, tasks: Sequence[Task]) -> None:
        self._engine = engine
        self._texts = [_Text(self, number, task) for number, task in enumerate(tasks)]
        self._running = len(tasks)
        self.queue: asyncio.Queue[Event] = asyncio.Queue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for text in self._texts:
            text.unwanted = True
        self._engine.wake()

    def stop(self, number: int) -> None:
        """Nobody wants more of one text; no event of it comes any more."""
        if not self._texts[number].unwanted:
            self._texts[number].unwanted = True
            self._running -= 1
            self._engine.wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while self._running:
            event = await self.queue.get()
            if self._texts[event.number].unwanted:
                continue
            if event.end is not None:
                self._texts[event.number].unwanted = True
                self._running -= 1
            return event
        raise StopAsyncIteration


@dataclass
class GenerationEngine:
    """Continues texts of many requests in one batch."""

    model: Decoder
    vocab_size: int
    slots: int = 16
    """Most texts that are continued at the same time."""
    line: int = 256
    """Most texts that wait."""
    prefix_bytes: int = 0
    """Memory for what was read of texts that are done (`PrefixCache`)."""
    waiting: deque[_Text] = field(default_factory=deque)
    active: dict[Row, _Text] = field(default_factory=dict)
    _wanted: threading.Condition = field(default_factory=threading.Condition)
    _closing: bool = False
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._closing = True
        self.wake()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    @property
    def is_alive(self) -> bool:
        """Whether texts are being continued at all."""
        return self._thread is not None and self._thread.is_alive()

    def submit(self, tasks: Sequence[Task]) -> Session:
        """Puts the texts of a request in line, all or none; to be used with `with`.

        Raises:
            Busy: there is no room in the line.
        """
        with self._wanted:
            free = self.slots - len(self.active)
            if len(self.waiting) + len(tasks) > self.line + free:
                raise Busy
            session = Session(self, tasks)
            self.waiting.extend(session._texts)
            self._wanted.notify()
        return session

    def wake(self) -> None:
        """Something has changed that the engine's thread may be waiting for."""
        with self._wanted:
            self._wanted.notify()

    def _work(self) -> None:
        batch = self._new_batch()
        while True:
            with self._wanted:
                self._wanted.wait_for(lambda: self.waiting or self.active or self._closing)
                if self._closing:
                    return
                events = self._admit(batch)
            try:
                events += [self._events_of(batch, *outcome) for outcome in batch.step()]
            except Exception:  # a fault that no text can be blamed for; the next request may do better
                log.exception("%d texts could not be continued", len(self.active))
                events += [(text, Event(text.number, None, "error")) for text in self.active.values()]
                self.active.clear()
                batch = self._new_batch()
            if events and self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_deliver, events)

    def _new_batch(self) -> DecodingBatch:
        prefixes = PrefixCache(self.prefix_bytes) if self.prefix_bytes else None
        return DecodingBatch(self.model, self.vocab_size, prefixes)

    def _admit(self, batch: DecodingBatch) -> list[TextEvent]:
        for row in [row for row, text in self.active.items() if text.unwanted]:
            del self.active[row]
            batch.leave(row)
        self.waiting = deque(text for text in self.waiting if not text.unwanted)
        events: list[TextEvent] = []
        while self.waiting and len(self.active) < self.slots:
            text = self.waiting.popleft()
            task = text.task
            try:
                row = batch.join(task.tokens, task.options, likeliest=task.likeliest, score_prompt=task.score_prompt)
            except Exception:
                log.exception("a text could not be taken in")
                events.append((text, Event(text.number, None, "error")))
            else:
                self.active[row] = text
        return events

    def _events_of(self, batch: DecodingBatch, row: Row, outcome: Chosen | Exception) -> TextEvent:
        text = self.active[row]
        text.added += 1
        end: End | None = None
        shown: Chosen | None = None
        if isinstance(outcome, Exception):
            end = "error"
        elif outcome.token in text.task.stops and not text.task.only_read:
            end = "stop"
        elif text.task.only_read or text.added >= text.task.options.max_tokens:
            end = "length"
        if not isinstance(outcome, Exception) and end != "stop" and not text.task.only_read:
            shown = outcome
        if end is not None:
            del self.active[row]
            batch.leave(row)
        return text, Event(text.number, shown, end, row.prompt if text.added == 1 else ())


def _deliver(events: list[TextEvent]) -> None:
    for text, event in events:
        if not text.unwanted:
            text.session.queue.put_nowait(event)
