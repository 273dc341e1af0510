"""Logs, on standard error: sentences for people, or one JSON object a line for what gathers the logs of a cluster.

Every program of Kindling says what it does by its own loggers; libraries are heard where something is amiss.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

OURS = "kindling_"
"""What the names of our packages, and so of their loggers, begin with."""

_FIGURES = "figures"

_about: dict[str, object] = {}


def add_option(parser: argparse.ArgumentParser) -> None:
    """The option by which whoever starts a program chooses the form of its log."""
    parser.add_argument(
        "--log", choices=("text", "json"), default="text", help="sentences on stderr, or a JSON object a line"
    )


def set_up(form: str, *, level: int = logging.INFO) -> None:
    """Send the logs of this process to standard error, as `text` or as `json`."""
    take_down()
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name(OURS)
    handler.setFormatter(JsonLines(lambda: _about) if form == "json" else logging.Formatter("%(message)s"))
    handler.addFilter(_is_worth_a_line)
    logging.root.addHandler(handler)
    logging.root.setLevel(level)
    logging.captureWarnings(form == "json")


def take_down() -> None:
    """Undo `set_up`, as for a process that does several things in turn."""
    for handler in logging.root.handlers[:]:
        if handler.get_name() == OURS:
            logging.root.removeHandler(handler)
    logging.captureWarnings(False)
    _about.clear()


def about(**facts: object) -> None:
    """What every JSON line of this process holds from now on, such as the run that it is for."""
    _about.update(facts)


def say(log: logging.Logger, sentence: str, **figures: object) -> None:
    """Log a sentence; JSON has its figures beside it."""
    log.info("%s", sentence, extra={_FIGURES: figures})


class JsonLines(logging.Formatter):
    """One line of JSON for each record: time, level, logger, message, and the figures that were said with it."""

    def __init__(self, context: Callable[[], Mapping[str, object]]) -> None:
        """`context` gives what else a line holds, such as the run that it is about."""
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        """The line. JSON has no word for figures that are not finite: they are left out."""
        said: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._context(),
            **getattr(record, _FIGURES, {}),
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        finite = {name: value for name, value in said.items() if not _is_odd(value)}
        return json.dumps(finite, ensure_ascii=False, default=str)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.startswith((OURS, "__main__"))


def _is_odd(value: object) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
