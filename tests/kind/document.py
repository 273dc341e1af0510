"""A page's commands, typed as they stand there: in order, in one shell, as a reader would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WATCH = re.compile(r"^kubectl .*--watch\b")
WATCHED_SECONDS = 20
"""After which whoever watches presses Ctrl-C."""
END = "the command ended with"


@dataclass(frozen=True)
class Step:
    """A command, and what came of it."""

    command: str
    output: str
    code: int
    seconds: float


def commands(page: str) -> list[str]:
    """The commands in the page's blocks of shell; one of several lines is one."""
    found: list[str] = []
    for block in BLOCK.findall(page):
        command = ""
        for line in block.splitlines():
            command += line
            if not command.endswith("\\") and _is_complete(command):
                found.append(command)
                command = ""
            elif command:
                command += "\n"
    return [command for command in found if re.sub(r"#.*", "", command).strip()]


def typed(page: str, where: Path, environment: Mapping[str, str]) -> Iterator[Step]:
    """Each command of a page in a shell of its own, until one fails; what still runs then is ended.

    Args:
        where: the folder in which the reader is.
    """
    shell = subprocess.Popen(
        ["bash"],
        cwd=where,
        env={**os.environ, **environment},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        for command in commands(page):
            yield (step := _step(shell, command))
            if step.code:
                return
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()


def _step(shell: subprocess.Popen[str], command: str) -> Step:
    assert shell.stdin is not None and shell.stdout is not None
    watched = WATCH.match(command) is not None
    words = f"timeout --signal INT {WATCHED_SECONDS} {command}" if watched else command
    began = time.monotonic()
    shell.stdin.write(f"{{ {words}\n}} < /dev/null\nprintf '\\n{END} %s\\n' $?\n")
    shell.stdin.flush()
    output = ""
    for line in shell.stdout:
        if line.startswith(END):
            code = int(line.split()[-1])
            return Step(command, output, 0 if watched and code == 124 else code, time.monotonic() - began)
        print(line, end="", flush=True)
        output += line
    return Step(command, output, shell.wait(), time.monotonic() - began)


def _is_complete(command: str) -> bool:
    return subprocess.run(["bash", "-n"], input=command, text=True, capture_output=True).returncode == 0
