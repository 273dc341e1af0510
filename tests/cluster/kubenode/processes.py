"""Commands that are waited for, and daemons that are not."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from kubenode.places import CACHE, LOGS, STATE

Word = str | Path


class ClusterError(Exception):
    """The cluster cannot do what it was asked, and why."""


def run(*command: Word, check: bool = True, standard_input: str | None = None) -> subprocess.CompletedProcess[str]:
    """What a short command says.

    Raises:
        ClusterError: it failed, with the end of what it said.
    """
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True, input=standard_input)
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise ClusterError(f"{' '.join(map(str, command))}: exit code {done.returncode}: {said}")
    return done


def run_long(
    *command: Word, where: Path | None = None, environment: Mapping[str, str] | None = None, seconds: float = 1800
) -> None:
    """Run a command that takes minutes, with its output on standard error.

    Raises:
        ClusterError: it failed, or ran past its time.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=where, env={**os.environ, **(environment or {})}, stdout=2, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{' '.join(words)}: not done after {seconds:.0f} s") from None
    if done.returncode:
        raise ClusterError(f"{' '.join(words)}: exit code {done.returncode}")


def wait(what: str, ready: Callable[[], bool], seconds: float) -> None:
    """Ask until it is so.

    Raises:
        ClusterError: it is not so in time.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not ready after {seconds:.0f} s; see {LOGS}")
        time.sleep(0.2)


@contextmanager
def alone(task: str | Path, *, but_for_each_other: bool = False) -> Iterator[None]:
    """Whoever does the same on this machine waits, or is waited for; not those who may do it beside each other.

    Args:
        task: its name, or the file that stands for it.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    path = task if isinstance(task, Path) else CACHE / f"{task}.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if but_for_each_other else fcntl.LOCK_EX)
        yield


def spawn(name: str, command: Sequence[Word], network: str | None = None, *, humble: bool = False) -> None:
    """Start a daemon, in a network namespace or the host's, unless it runs; its output goes to `LOGS/name.log`.

    A `humble` one, and what it starts, has the priority of its caller, which may be low; others have the normal one.
    """
    if is_running(name):
        return
    if network:  # not `ip netns exec`, which would hide the mounts of cgroups
        command = ["nsenter", f"--net=/run/netns/{network}", *command]
    for folder in (LOGS, STATE / "run"):
        folder.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{name}.log").open("ab") as log:
        daemon = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={key: value for key, value in os.environ.items() if key != "KINDLING_TESTS"},
        )
    if not humble:
        os.setpriority(os.PRIO_PROCESS, daemon.pid, 0)
    _pid_file(name).write_text(f"{daemon.pid} {_start_time(daemon.pid)}")


def stop(name: str, sent: signal.Signals = signal.SIGTERM, seconds: float = 5) -> None:
    """End a daemon; one that does not go in time is killed."""
    process = _process(name)
    if process is None:
        return
    os.kill(process, sent)
    deadline = time.monotonic() + seconds
    while is_running(name):
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    _pid_file(name).unlink(missing_ok=True)


def is_running(name: str) -> bool:
    """Whether the daemon lives."""
    return _process(name) is not None


def _process(name: str) -> int | None:
    try:
        process, started = _pid_file(name).read_text().split()
    except (OSError, ValueError):
        return None
    return int(process) if _start_time(int(process)) == started else None


def _pid_file(name: str) -> Path:
    return STATE / "run" / f"{name}.pid"


def _start_time(process: int) -> str | None:
    """In clock ticks; tells a process from a later one with the same id. None: it has ended.

    A process that was killed is a zombie at once, and holds its ports until the last of its threads has gone, too.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        threads = len(os.listdir(f"/proc/{process}/task"))
    except OSError:
        return None
    return None if fields[0] in "ZX" and threads <= 1 else fields[19]
