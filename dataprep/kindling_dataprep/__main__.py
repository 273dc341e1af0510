"""`python -m kindling_dataprep RUNFILE --progress FILE`: one build, in this process.

Exit code 0: done. 2: the input is at fault. 1: we are. 130, 143: stopped by SIGINT, SIGTERM; what was done is kept, and
the same command goes on from it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

from kindling_api.errors import EXIT_DONE, EXIT_OURS, KindlingError, UserError
from kindling_api.v1alpha1.runfile import DatasetBuildFile, Progress, read_run_file
from kindling_api.v1alpha1.status import Failure
from kindling_dataprep.build import build
from kindling_dataprep.tracker import Tracker
from kindling_storage.progress import ProgressWriter


class Stopped(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)


def main(arguments: list[str] | None = None) -> int:
    """Runs the build that a run file describes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kindling_dataprep", description=__doc__)
    parser.add_argument("run_file", type=Path, help="JSON, as kindling_api.v1alpha1.runfile.DatasetBuildFile")
    parser.add_argument("--progress", type=Path, help="where to write the progress document")
    options = parser.parse_args(arguments)
    writer = ProgressWriter(options.progress)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        run = read_run_file(options.run_file)
        assert isinstance(run, DatasetBuildFile), f"{run.kind} is not for this program"
        result = build(run, Tracker(writer))
    except Stopped as stopped:
        message = "Stopped. What is done is kept; run the same again to go on."
        return _fail(
            writer, Failure(reason="SuspendedByUser", message=message, signal=stopped.signal.name), 128 + stopped.signal
        )
    except KindlingError as error:
        reason = "UserError" if isinstance(error, UserError) else "InternalError"
        return _fail(writer, Failure(reason=reason, message=str(error)[:2048]), error.exit_code)
    except Exception as error:  # the last word must be written whatever happened; the traceback follows
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        return _fail(writer, Failure(reason="InternalError", message=message[:2048]), EXIT_OURS)
    message = f"{result.documents.kept:,} of {result.documents.read:,} documents kept, {result.tokens:,} tokens"
    print(message, file=sys.stderr)
    writer.write(Progress(state="Succeeded", message=message, result=result))
    return EXIT_DONE


def _fail(writer: ProgressWriter, failure: Failure, exit_code: int) -> int:
    print(failure.message, file=sys.stderr)
    failure = failure.model_copy(update={"exit_code": int(exit_code)})
    writer.write(Progress(state="Failed", message=failure.message[:1024], failure=failure))
    return int(exit_code)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped(number)


if __name__ == "__main__":
    sys.exit(main())
