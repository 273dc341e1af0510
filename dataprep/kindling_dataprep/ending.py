"""How a process of data preparation ends: with a last word and an exit code, whatever happens in it.

Exit code 0: done. 2: the input is at fault. 1: we are. 130, 143: stopped by SIGINT, SIGTERM; what was done is kept, and
the same command goes on from it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from kindling_api.errors import (
    EXIT_DONE,
    EXIT_OURS,
    EXIT_SIGNALLED,
    KindlingError,
)
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import Failure, Reason, reason_of
from kindling_dataprep.tracker import Writer


class Stopped(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)


def add_progress_options(parser: argparse.ArgumentParser) -> None:
    """The options by which whoever started the process hears of it."""
    parser.add_argument(
        "--progress", type=Path, help="where to write the progress document; with --serve, its last version alone"
    )
    parser.add_argument("--serve", type=int, metavar="PORT", help="where to serve it: GET /progress, GET /metrics")


def run_to_the_end(work: Callable[[], Progress], writer: Writer) -> int:
    """Does `work`, which returns its last word, and returns the exit code; a word is written in any case."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        word = work()
    except Stopped as stopped:
        message = "Stopped. What is done is kept; run the same again to go on."
        word = _failed("SuspendedByUser", message, EXIT_SIGNALLED + stopped.signal, stopped.signal.name)
    except KindlingError as error:
        word = _failed(reason_of(error), str(error), error.exit_code)
    except MemoryError as error:
        word = _failed("OutOfMemory", str(error) or "memory ran out", EXIT_OURS)
    except Exception as error:  # the last word must be written whatever happened; the traceback follows
        traceback.print_exc()
        word = _failed("InternalError", f"{type(error).__name__}: {error}", EXIT_OURS)
    print(word.message, file=sys.stderr)
    writer.write(word)
    if word.failure is None:
        return EXIT_DONE
    return word.failure.exit_code or EXIT_OURS


def _failed(reason: Reason, message: str, exit_code: int, signal_name: str | None = None) -> Progress:
    failure = Failure(reason=reason, message=message[:2048], exit_code=int(exit_code), signal=signal_name)
    return Progress(state="Failed", message=message[:1024], failure=failure)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped(number)
