"""One stage of a flow as a process: started, watched through its progress document, stopped, its end explained.

The child gets a run file and hands back a progress document; nothing else passes between the two. It runs in a
process group of its own, so that a Ctrl-C on the terminal reaches the command line alone, which then tells the child.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from kindling_api.base import canonical_json
from kindling_api.errors import EXIT_OURS, EXIT_USER
from kindling_api.v1alpha1.runfile import Progress, RunFile
from kindling_api.v1alpha1.status import Failure
from kindling_runtime.failure import how_it_ended, signal_name
from kindling_runtime.prctl import signal_at_death_of_parent

MODULES = {
    "DatasetBuild": "kindling_dataprep",
    "PretrainRun": "kindling_trainer",
    "AlignmentRun": "kindling_trainer",
}
"""Which package does the work of which kind."""

_LAST_LINES_BYTES = 8_192


class ChildProcess:
    """A running child. Leaving the context with the child alive kills it.

    Args:
        run_file: what the child is to do.
        folder: a private folder for the run file and the progress document.
        log: where the child's stderr is appended.
    """

    def __init__(self, run_file: RunFile, *, folder: Path, log: Path) -> None:
        self.log = log
        self._progress_path = folder / f"{run_file.kind}-progress.json"
        self._last = Progress()
        run_path = folder / f"{run_file.kind}-run.json"
        run_path.write_bytes(canonical_json(run_file.document()))
        command = [sys.executable, "-m", MODULES[run_file.kind], str(run_path), "--progress", str(self._progress_path)]
        self._process = _start(command, log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()
            self._process.wait()

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`; whether the child has ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def progress(self) -> Progress:
        """The newest progress document; an empty one before the child has written any."""
        with suppress(FileNotFoundError, ValidationError):  # not there yet, or half rewritten: the last one still holds
            self._last = Progress.model_validate_json(self._progress_path.read_bytes())
        return self._last

    def stop(self) -> None:
        """Ask the child to save what there is and to leave."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End the child and its whole group at once."""
        with suppress(ProcessLookupError):  # it ended by itself in between
            os.killpg(self._process.pid, signal.SIGKILL)

    def last_word(self) -> Progress:
        """The final progress document of a child that has ended; one of our own where it left none."""
        progress, code = self.progress(), self._process.returncode
        if code == 0 and progress.state == "Succeeded":
            return progress
        failure = progress.failure or _without_last_word(code)
        return progress.model_copy(update={"state": "Failed", "result": None, "failure": failure})

    @property
    def exit_code(self) -> int:
        """What this command line returns for the child's end: 2 where the user's input was at fault, else 1."""
        return EXIT_USER if self._process.returncode == EXIT_USER else EXIT_OURS


def last_lines(log: Path, count: int) -> list[str]:
    """The last `count` lines of a log that are not empty."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LAST_LINES_BYTES))
        text = file.read().decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()][-count:]


def _start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as stderr:
        return subprocess.Popen(
            command,
            env={**os.environ, "PYTHONSAFEPATH": "1"},  # a json.py in the user's folder is not Python's json
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=partial(signal_at_death_of_parent, signal.SIGTERM),
        )


def _without_last_word(code: int) -> Failure:
    message, name = how_it_ended("the process", code), signal_name(code)
    if name is not None:
        return Failure(reason="InternalError", message=message, signal=name)
    return Failure(reason="InternalError", message=f"{message} and no last word", exit_code=code)
