"""`kindling render`: the operator's own program, asked what it would make of documents."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kindling_api.errors import EXIT_DONE, EXIT_USER, SpecError


def render_files(files: Sequence[Path], *, settings: Path | None) -> None:
    """Print the objects.

    Args:
        settings: the settings of an installation, as its chart writes them.

    Raises:
        SpecError: a document or the settings are wrong.
        CalledProcessError: the program failed, through a fault of ours; its traceback has been shown.
    """
    command = [sys.executable, "-m", "kindling_operator.render", *map(str, files)]
    command += ["--settings", str(settings)] if settings else []
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}  # a yaml.py in the user's folder is not the library
    ended = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    if ended.returncode == EXIT_USER:
        raise SpecError(ended.stderr.strip())
    if ended.returncode not in (EXIT_DONE, -signal.SIGPIPE):  # the reader of a pipe may have seen enough
        sys.stderr.write(ended.stderr)
        ended.check_returncode()
