"""`python -m kindling_trainer RUNFILE --progress FILE`: one run, from its run file to its model.

Exit code 0: done. 2: the input is at fault. 1: we are. 130, 143: stopped by SIGINT, SIGTERM; what was done is kept, and
the same command goes on from it.

In a cluster each pod adds `--nodes N --master HOST`, and finds its own number in JOB_COMPLETION_INDEX. Then nothing is
started again here: one process that ends badly ends the attempt, and the pod says what it has seen of the cause.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

from kindling_api.base import canonical_json
from kindling_api.errors import EXIT_DONE, EXIT_OURS, KindlingError, SpecError, explain
from kindling_api.v1alpha1.runfile import AlignmentRunFile, DatasetBuildFile, Progress, read_run_file
from kindling_api.v1alpha1.status import Failure, ModelResult
from kindling_storage import open_store
from kindling_storage.progress import ProgressWriter
from kindling_storage.serve import serve
from kindling_trainer.failure import describe
from kindling_trainer.inputs import with_contents
from kindling_trainer.launch import Request, RunFailed, launch
from kindling_trainer.place import LOCALHOST, alone, among


def main(arguments: list[str] | None = None) -> int:
    """Train what a run file describes; returns the exit code."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    try:
        word = _train(options, asked)
    except RunFailed as failed:
        word = _failed(failed.failure)
    except KindlingError as error:
        word = _failed(describe(error))
    except Exception as error:  # the last word must be written whatever happened; the traceback follows
        traceback.print_exc()
        word = _failed(describe(error))
    print(word.message, file=sys.stderr)
    ProgressWriter(options.progress).write(word)
    if word.failure is None:
        return EXIT_DONE
    return EXIT_OURS if word.failure.exit_code is None else word.failure.exit_code


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kindling_trainer", description=__doc__)
    parser.add_argument("run_file", type=Path, help="JSON, as kindling_api.v1alpha1.runfile has it")
    parser.add_argument("--progress", type=Path, metavar="FILE", help="where to write the progress document")
    parser.add_argument(
        "--serve", type=int, metavar="PORT", help="serve progress there instead; FILE gets the last word alone"
    )
    parser.add_argument("--nodes", type=int, metavar="N", help="machines of the run, each of which starts this command")
    parser.add_argument(
        "--master", metavar="HOST[:PORT]", default=LOCALHOST, help="the machine of the first process, for all of them"
    )
    return parser.parse_args(arguments)


def _train(options: argparse.Namespace, asked: list[int]) -> Progress:
    """The last word of a run that went well."""
    run = read_run_file(options.run_file)
    if isinstance(run, DatasetBuildFile):
        allowed, remedy = "PretrainRun or AlignmentRun", "give it to kindling_dataprep"
        raise SpecError(explain("kind", found=run.kind, allowed=allowed, remedy=remedy))
    resources, managed = run.spec.resources, options.nodes is not None
    place = among(options.nodes, options.master, resources, os.environ) if managed else alone(resources)
    with tempfile.TemporaryDirectory(prefix="kindling-progress-") as folder:
        live = options.progress if options.serve is None else Path(folder) / "progress.json"
        run_file = options.run_file
        if isinstance(run, AlignmentRunFile):
            run, run_file = with_contents(run), Path(folder) / "run.json"
            run_file.write_bytes(canonical_json(run.document()))
        request = Request(run, run_file, open_store(run.output), place, managed, live, asked)
        with serve(options.serve, run, lambda: _latest(request)):
            result = launch(request)
    if result is None:
        return Progress(state="Succeeded", message=f"node {place.node} of {place.nodes} has done its part")
    return Progress(state="Succeeded", message=_summary(result), result=result)


def _latest(request: Request) -> Progress:
    """What the first training process has written."""
    assert request.progress is not None
    with suppress(FileNotFoundError):
        return Progress.model_validate_json(request.progress.read_bytes())
    return Progress(message="starting")


def _summary(result: ModelResult) -> str:
    tried = "" if result.validation_loss is None else f", validation loss {result.validation_loss:.4f}"
    return f"{result.steps:,} steps on {result.tokens:,} tokens{tried}"


def _failed(failure: Failure) -> Progress:
    return Progress(state="Failed", message=failure.message[:1024], failure=failure)


if __name__ == "__main__":
    sys.exit(main())
