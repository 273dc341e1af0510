"""How a process ends that does a run: with a last word and an exit code, whatever happens in it.

Exit code 0: done. 2: the input is at fault. 1: we are. 130, 143: stopped by SIGINT, SIGTERM; what was done is kept, and
the same command goes on from it.
"""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from kindling_api import logs
from kindling_api.errors import EXIT_DONE, EXIT_OURS
from kindling_api.v1alpha1.runfile import Progress, RunFile, read_run_file
from kindling_runtime.failure import describe, failed, is_expected
from kindling_runtime.progress import Writer
from kindling_runtime.signals import Stopped

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options by which whoever started the process says which run it is for, and hears of it."""
    logs.add_option(parser)
    parser.add_argument("--uid", help="refuse the run file of a document with another UID")
    parser.add_argument("--key", help="refuse a run file of other work")
    parser.add_argument(
        "--progress", type=Path, help="where to write the progress document; with --serve, its last version alone"
    )
    parser.add_argument("--serve", type=int, metavar="PORT", help="where to serve it: GET /progress, GET /metrics")


def read_run(options: argparse.Namespace) -> RunFile:
    """The run file that the options name, as `read_run_file` checks it; from now on the log is about its run."""
    run = read_run_file(options.run_file, uid=options.uid, key=options.key)
    about_run(run)
    return run


def about_run(run: RunFile) -> None:
    """From now on every JSON line of the log names this run."""
    logs.about(run=f"{run.kind}/{run.namespace}/{run.name}", attempt=run.attempt)


def stop(number: int) -> NoReturn:
    """What SIGINT and SIGTERM do where nothing else is to be done: they end the work where it is."""
    raise Stopped(number)


def run_to_the_end(work: Callable[[], Progress], writer: Writer, on_signal: Callable[[int], object] = stop) -> int:
    """Do `work`, which returns its last word, and return the exit code; a word is written in any case."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: on_signal(number))
    try:
        word = work()
    except (Exception, Stopped) as error:  # the last word must be written whatever happened
        word = failed(describe(error))
        log.error("%s", word.message, exc_info=None if is_expected(error) else error)
    else:
        log.info("%s", word.message)
    writer.write(word)
    if word.failure is None:
        return EXIT_DONE
    return EXIT_OURS if word.failure.exit_code is None else word.failure.exit_code
