"""Logs as one JSON object a line, each with the run that it is about."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

RUN: ContextVar[str] = ContextVar("run", default="")
"""The run that the current task is at, as in `PretrainRun/team-a/tiny`."""

ATTEMPT: ContextVar[int] = ContextVar("attempt", default=0)
"""Its attempt."""


class JsonLines(logging.Formatter):
    """One line of JSON for each record: time, level, logger, message, and the run and attempt where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        said: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if run := RUN.get():
            said["run"] = run
        if attempt := ATTEMPT.get():
            said["attempt"] = attempt
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False, default=str)


def set_up(*, verbose: bool = False) -> None:
    """Send the logs of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line for each event of each object
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
