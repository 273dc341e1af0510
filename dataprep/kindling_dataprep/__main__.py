"""`python -m kindling_dataprep RUNFILE`: one build, with Ray inside this process or, as the driver, on a Ray cluster.

Exit codes are those of `kindling_runtime.exit`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from kindling_api import logs
from kindling_api.errors import EXIT_SIGNALLED
from kindling_api.v1alpha1.runfile import DatasetBuildFile, Progress
from kindling_dataprep.build import build
from kindling_dataprep.executors.relay import LogWriter
from kindling_dataprep.output.damage import summary
from kindling_dataprep.tracker import Tracker
from kindling_runtime.exit import add_options, read_run, run_to_the_end
from kindling_runtime.progress import ProgressWriter, Writer
from kindling_runtime.status_server import serve_status


def main(arguments: list[str] | None = None) -> int:
    """Runs the build that a run file describes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kindling_dataprep", description=__doc__)
    parser.add_argument("run_file", type=Path, help="JSON, as kindling_api.v1alpha1.runfile.DatasetBuildFile")
    add_options(parser)
    parser.add_argument(
        "--cluster", action="store_true", help="use the Ray cluster that this is a job of; progress goes to its log"
    )
    options = parser.parse_args(arguments)
    logs.set_up(options.log)
    served = options.serve is not None
    writer = LogWriter() if options.cluster else ProgressWriter(options.progress, last_word_only=served)
    return run_to_the_end(lambda: _build(options, writer), writer)


def _build(options: argparse.Namespace, writer: Writer) -> Progress:
    run = read_run(options)
    assert isinstance(run, DatasetBuildFile), f"{run.kind} is not for this program"
    with serve_status(options.serve, run, lambda: writer.latest):
        result = build(run, Tracker(writer), cluster=options.cluster)
    message = f"{result.documents.kept:,} of {result.documents.read:,} documents kept, {result.tokens:,} tokens"
    if result.damage is not None and (lost := summary(result.damage)):
        message = f"{message}; {lost}"
    return Progress(state="Succeeded", message=message, result=result)


def _leave(code: int) -> None:
    """Ends the process. Where it was stopped, a thread may still be learning merges, deaf to signals, and the
    interpreter's own end would abort over it."""
    if code <= EXIT_SIGNALLED:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
