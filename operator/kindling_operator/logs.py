"""The operator's logs: JSON lines, each with the run that it is about."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar

from kindling_api.logs import JsonLines

RUN: ContextVar[str] = ContextVar("run", default="")
"""The run that the current task is at, as in `PretrainRun/team-a/tiny`."""

ATTEMPT: ContextVar[int] = ContextVar("attempt", default=0)
"""The attempt of the document that is being reconciled."""


def set_up(*, verbose: bool = False) -> None:
    """Send the logs of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(lines())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line for each event of each object
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def lines() -> JsonLines:
    """What makes a line of a record."""
    return JsonLines(lambda: {"run": RUN.get() or None, "attempt": ATTEMPT.get() or None})
