"""`python -m kindling_dataprep.executors.submit RUNFILE`: one build as a job of a Ray cluster, followed to its end.

This is the container of a RayJob's submitter. KubeRay tells it the head's address (RAY_DASHBOARD_ADDRESS), the name of
the job (RAY_JOB_SUBMISSION_ID), which makes a second submission find the first, and the cluster's token
(RAY_AUTH_TOKEN). The driver runs on the head, from the same image and with the run file at the same path. What it says
of its progress is in its log; its last word becomes that of this process. Exit codes are those of
`kindling_runtime.exit`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path

from kindling_api import logs
from kindling_api.bounds import FAILURE_MESSAGE, clip
from kindling_api.errors import EXIT_OURS, KindlingError, SpecError, explain
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import Failure
from kindling_dataprep.executors.ray_jobs import PAUSE_SECONDS, JobState, RayJobs
from kindling_dataprep.executors.relay import split
from kindling_runtime.exit import add_options, read_run, run_to_the_end
from kindling_runtime.failure import failed, how_it_ended, signal_name
from kindling_runtime.progress import ProgressWriter, Writer
from kindling_runtime.signals import Stopped
from kindling_runtime.status_server import serve_status

LOG_SHARE = 0.05
"""The largest part of the time that goes into fetching the log, which is fetched as a whole."""


def main(arguments: list[str] | None = None) -> int:
    """Has the build done that a run file describes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kindling_dataprep.executors.submit", description=__doc__)
    parser.add_argument("run_file", type=Path, help="as for kindling_dataprep; on the head, too")
    add_options(parser)
    options = parser.parse_args(arguments)
    logs.set_up(options.log)
    writer = ProgressWriter(options.progress, last_word_only=options.serve is not None)
    return run_to_the_end(lambda: _submit(options, writer), writer)


def _submit(options: argparse.Namespace, writer: Writer) -> Progress:
    run = read_run(options)
    asked = [sys.executable, "-m", "kindling_dataprep", str(options.run_file), "--cluster", "--log", options.log]
    asked += [f"--{name}={value}" for name, value in (("uid", options.uid), ("key", options.key)) if value]
    jobs = RayJobs(_required("RAY_DASHBOARD_ADDRESS"), os.environ.get("RAY_AUTH_TOKEN"))
    job = _required("RAY_JOB_SUBMISSION_ID")
    writer.write(Progress(message="Waiting for the Ray cluster to take the build"), force=True)
    with serve_status(options.serve, run, lambda: writer.latest):
        try:
            jobs.submit(job, shlex.join(asked))
            return follow(jobs, job, writer)
        except Stopped:
            with suppress(KindlingError):
                jobs.stop(job)
            raise


def follow(jobs: RayJobs, job: str, writer: Writer) -> Progress:
    """Passes on what a job says, until it ends; returns its last word, or one of our own where it left none.

    Raises:
        KindlingError: the head of the cluster stays away.
    """
    newest, shown = Progress(), 0
    while True:
        state = jobs.find(job)  # before its log: that of a job that has ended is complete
        if state is None:
            found, remedy = "no job of that name any more", "see why the Ray head's pod was started anew"
            raise KindlingError(explain(f"Ray job {job}", found=found, allowed="a job that goes on", remedy=remedy))
        started = time.monotonic()
        progress, lines = split(jobs.log(job).splitlines())
        took = time.monotonic() - started
        for line in lines[shown:]:
            print(line, file=sys.stderr, flush=True)
        newest, shown = progress or newest, len(lines)
        if state.ended:
            return newest if newest.state != "Running" else _death(state)
        if newest.state == "Running":
            writer.write(newest)
        time.sleep(max(PAUSE_SECONDS, took / LOG_SHARE))


def _death(state: JobState) -> Progress:
    """The last word for a driver that left none."""
    code = state.exit_code
    how = "the driver ended" if code is None else how_it_ended("the driver", code)
    message = clip(f"{how} without a last word; Ray says: {state.message or state.status}", FAILURE_MESSAGE)
    name = signal_name(code) if code is not None else None
    return failed(Failure(reason="InternalError", message=message, exit_code=EXIT_OURS, signal=name))


def _required(name: str) -> str:
    """An environment variable that KubeRay sets."""
    value = os.environ.get(name)
    if not value:
        allowed, remedy = "what KubeRay sets for a submitter", "run this as the submitter of a RayJob (K8sJobMode)"
        raise SpecError(explain(name, found="nothing", allowed=allowed, remedy=remedy))
    return value


if __name__ == "__main__":
    sys.exit(main())
