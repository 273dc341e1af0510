"""`python -m kindling_trainer RUNFILE --progress FILE`: one run, from its run file to its model.

Exit code 0: done. 2: the input is at fault. 1: we are. 130, 143: stopped by SIGINT, SIGTERM; what was done is kept, and
the same command goes on from it.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import traceback
from pathlib import Path

from kindling_api.errors import EXIT_DONE, EXIT_OURS, KindlingError
from kindling_api.v1alpha1.runfile import PretrainRunFile, Progress, read_run_file
from kindling_api.v1alpha1.status import Failure, ModelResult
from kindling_storage.progress import ProgressWriter
from kindling_trainer.failure import describe
from kindling_trainer.launch import Request, RunFailed, launch


def main(arguments: list[str] | None = None) -> int:
    """Train what a run file describes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kindling_trainer", description=__doc__)
    parser.add_argument("run_file", type=Path, help="JSON, as kindling_api.v1alpha1.runfile.PretrainRunFile")
    parser.add_argument("--progress", type=Path, help="where to write the progress document")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    writer = ProgressWriter(options.progress)
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    try:
        run = read_run_file(options.run_file)
        assert isinstance(run, PretrainRunFile), f"{run.kind} is not for this program"
        result = launch(Request(run, options.run_file, options.progress, asked))
    except RunFailed as failed:
        return _fail(writer, failed.failure)
    except KindlingError as error:
        return _fail(writer, describe(error))
    except Exception as error:  # the last word must be written whatever happened; the traceback follows
        traceback.print_exc()
        return _fail(writer, describe(error))
    message = _summary(result)
    print(message, file=sys.stderr)
    writer.write(Progress(state="Succeeded", message=message, result=result))
    return EXIT_DONE


def _summary(result: ModelResult) -> str:
    tried = "" if result.validation_loss is None else f", validation loss {result.validation_loss:.4f}"
    return f"{result.steps:,} steps on {result.tokens:,} tokens{tried}"


def _fail(writer: ProgressWriter, failure: Failure) -> int:
    print(failure.message, file=sys.stderr)
    code = EXIT_OURS if failure.exit_code is None else failure.exit_code
    writer.write(Progress(state="Failed", message=failure.message[:1024], failure=failure))
    return code


if __name__ == "__main__":
    sys.exit(main())
