"""A process that has loaded a program's modules already, and forks the program from itself when asked.

What is forked becomes a child of the process that asked: the fork server starts it by a parent that ends at once, and
the asking process is the subreaper of its descendants. So it is watched, signalled
and waited for as any other child. Python's own `multiprocessing.forkserver` keeps its children to itself, and ends,
with them, at a SIGTERM to the process group. Where a system has no subreapers, each process loads its modules anew.

The server starts no thread and touches no device, for neither survives a fork.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kindling_api.errors import EXIT_SIGNALLED
from kindling_runtime.prctl import adopt_orphans, hide, set_name
from kindling_runtime.signals import die_with

_FOR_OTHERS = (signal.SIGTERM, signal.SIGINT)
_POLL_SECONDS = 0.01


class Process(Protocol):
    """A child process, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int | None:
        """Its number; None before it has one."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal, if it lives."""

    def wait(self) -> int:
        """Its exit code, once it has ended."""


class ForkServer:
    """Starts `python -m module` as often as asked, from a process that has imported `module`.

    Args:
        module: has `main(arguments) -> exit code`.
        hidden: whether memory and environment of the processes are kept from others of the same user.
    """

    def __init__(self, module: str, *, hidden: bool = False) -> None:
        self._module, self._hidden = module, hidden
        self._server: _Server | None = None

    def preload(self) -> None:
        """Begin to load the modules, if that has not begun."""
        if sys.platform == "linux" and (self._server is None or not self._server.alive):
            self._server = _Server(self._module, hidden=self._hidden)

    def start(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Process:
        """A new process, which the kernel knows by `name` (15 bytes of it); its standard input is empty."""
        self.preload()
        if self._server is None:
            command = [sys.executable, "-m", self._module, *arguments]
            return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
        return self._server.fork({"name": name, "arguments": list(arguments), "environment": dict(environment)})


class _Server:
    """The client's side of one fork server."""

    def __init__(self, module: str, *, hidden: bool) -> None:
        adopt_orphans()
        self._replies, replies = os.pipe()
        os.set_blocking(self._replies, False)
        command = [sys.executable, "-m", "kindling_runtime.fork_server", module]
        command += ["--parent", str(os.getpid()), "--replies", str(replies), *(["--hidden"] if hidden else [])]
        # A pool of threads of NumPy's BLAS, which nothing here uses, would be there when the server forks.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, pass_fds=[replies])
        os.close(replies)
        self._heard = b""
        self._expecting: deque[_Forked] = deque()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, request: dict[str, Any]) -> _Forked:
        process = _Forked(self)
        self._expecting.append(process)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.listen()
        return process

    def listen(self) -> None:
        """Tell those that were asked for their numbers, as far as they have been forked, or that they never will be."""
        while select.select([self._replies], [], [], 0)[0]:
            heard = os.read(self._replies, 4096)
            if not heard:
                code = self._process.wait()
                while self._expecting:
                    self._expecting.popleft().returncode = code or 1
                return
            *lines, self._heard = (self._heard + heard).split(b"\n")
            for line in lines:
                self._expecting.popleft().pid = int(line)

    def kill(self) -> None:
        """End it, and with it all that has not been forked yet."""
        self._process.kill()
        self._process.wait()
        self.listen()


class _Forked:
    """A process that was asked for; it has no number until the server has loaded its modules."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self.pid: int | None = None
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.pid is None:
            self._server.listen()
        if self.returncode is None and self.pid is not None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is not None:
            return
        if self.pid is not None:
            os.kill(self.pid, sig)
        else:
            self._server.kill()
            self.returncode = -sig

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(_POLL_SECONDS)
        return code


def main() -> int:
    """Serve until nobody asks any more; a process that was forked returns from here, too, when it ends."""
    parser = argparse.ArgumentParser(prog="python -m kindling_runtime.fork_server")
    parser.add_argument("module")
    parser.add_argument("--parent", type=int, required=True, help="the process that asks, with which this one ends")
    parser.add_argument("--replies", type=int, required=True, help="file descriptor for the numbers of what was forked")
    parser.add_argument("--hidden", action="store_true")
    options = parser.parse_args()
    die_with(options.parent)
    # They go to the whole group, and are meant for what was forked, which gets them once it listens.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_OTHERS)
    if options.hidden:
        hide()
    program = importlib.import_module(options.module)
    gc.collect()
    gc.freeze()  # no collection writes to the pages that all share
    while line := sys.stdin.buffer.readline():
        ours, theirs = os.pipe()
        if between := os.fork():
            os.close(theirs)
            os.waitpid(between, 0)
            os.write(options.replies, os.read(ours, 32))
            os.close(ours)
        elif process := os.fork():
            os.write(theirs, b"%d\n" % process)
            os._exit(0)
        else:
            for descriptor in (ours, theirs, options.replies):
                os.close(descriptor)
            return _run(program, json.loads(line), options.parent)
    return 0


def _run(program: Any, request: dict[str, Any], parent: int) -> int:
    """Be the process that was asked for."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    set_name(request["name"])
    os.environ.clear()
    os.environ.update(request["environment"])
    while os.getppid() != parent:  # the one between has not ended yet
        time.sleep(_POLL_SECONDS)
        if not _exists(parent):
            return EXIT_SIGNALLED + signal.SIGKILL
    die_with(parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_OTHERS)
    code: int = program.main(request["arguments"])
    return code


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
