"""`python -m kindling_trainer RUNFILE --progress FILE`: one run, from its run file to its model.

Exit codes are those of `kindling_runtime.exit`.

In a cluster each pod adds `--nodes N --master HOST`, and finds its own number in JOB_COMPLETION_INDEX. Where starting
the processes again in their pods does not help, the attempt ends, and each pod says what it has seen of the cause.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from kindling_api import logs
from kindling_api.base import canonical_json
from kindling_api.bounds import SAVE_SECONDS
from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.runfile import AlignmentRunFile, DatasetBuildFile, Progress
from kindling_api.v1alpha1.status import ModelResult
from kindling_runtime.exit import add_options, read_run, run_to_the_end
from kindling_runtime.fork_server import ForkServer
from kindling_runtime.progress import ProgressWriter
from kindling_runtime.status_server import serve_status
from kindling_storage import open_store
from kindling_trainer.align.data.sources import with_contents
from kindling_trainer.align.rewards.confinement import hide_from_functions, is_hidden_from_functions
from kindling_trainer.data.identity import with_digests
from kindling_trainer.launch.launcher import launch
from kindling_trainer.launch.node import LOCALHOST, one_of_nodes, single_node
from kindling_trainer.launch.request import PROGRAM, Request

REPORTED_RESIZES = 4
"""Changes of size that a progress document tells of, the newest: whoever reads it comes every few seconds."""


def main(arguments: list[str] | None = None) -> int:
    """Train what a run file describes; returns the exit code."""
    options = _options(arguments)
    logs.set_up(options.log)
    asked: list[int] = []
    return run_to_the_end(lambda: _train(options, asked), ProgressWriter(options.progress), asked.append)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kindling_trainer", description=__doc__)
    parser.add_argument("run_file", type=Path, help="JSON, as kindling_api.v1alpha1.runfile has it")
    add_options(parser)
    parser.add_argument("--nodes", type=int, metavar="N", help="machines of the run, each of which starts this command")
    parser.add_argument(
        "--master", metavar="HOST[:PORT]", default=LOCALHOST, help="the machine of the first process, for all of them"
    )
    parser.add_argument(
        "--save-seconds", type=float, metavar="S", default=SAVE_SECONDS, help="to save and leave in, when asked to stop"
    )
    return parser.parse_args(arguments)


def _train(options: argparse.Namespace, asked: list[int]) -> Progress:
    """The last word of a run that went well."""
    run = read_run(options)
    if isinstance(run, DatasetBuildFile):
        allowed, remedy = "PretrainRun or AlignmentRun", "give it to kindling_dataprep"
        raise SpecError(explain("kind", found=run.kind, allowed=allowed, remedy=remedy))
    resources, managed = run.spec.resources, options.nodes is not None
    node = one_of_nodes(options.nodes, options.master, resources, os.environ) if managed else single_node(resources)
    with tempfile.TemporaryDirectory(prefix="kindling-progress-") as folder:
        live = options.progress if options.serve is None else Path(folder) / "progress.json"
        run_file = Path(folder) / "run.json"
        if isinstance(run, AlignmentRunFile):
            hide_from_functions(run)
        run = with_digests(run)
        run = with_contents(run) if isinstance(run, AlignmentRunFile) else run
        run_file.write_bytes(canonical_json(run.document()))
        server = ForkServer(PROGRAM, hidden=isinstance(run, AlignmentRunFile) and is_hidden_from_functions(run))
        output, save_seconds = open_store(run.output), options.save_seconds
        request = Request(run, run_file, output, node, managed, live, asked, server, save_seconds, options.log)
        with serve_status(options.serve, run, lambda: _latest(request)):
            result = launch(request)
    if result is None:
        return Progress(state="Succeeded", message=f"node {node.index} of {node.nodes} has done its part")
    incidents = _latest(request).incidents
    return Progress(
        state="Succeeded", message=_summary(result), result=result, incidents=incidents, **_restarts(request)
    )


def _latest(request: Request) -> Progress:
    """What the first training process has written, and what this launcher knows beside it."""
    progress = Progress(message="starting")
    if request.progress is not None:
        with suppress(FileNotFoundError):
            progress = Progress.model_validate_json(request.progress.read_bytes())
    return progress.model_copy(update=_restarts(request))


def _restarts(request: Request) -> dict[str, Any]:
    failures = request.restarts
    restarts = {"restarts": len(failures), "last_failure": failures[-1] if failures else None}
    return {**restarts, "nodes": request.nodes, "resizes": request.resizes[-REPORTED_RESIZES:] or None}


def _summary(result: ModelResult) -> str:
    validation = "" if result.validation_loss is None else f", validation loss {result.validation_loss:.4f}"
    return f"{result.steps:,} steps on {result.tokens:,} tokens{validation}"


if __name__ == "__main__":
    sys.exit(main())
