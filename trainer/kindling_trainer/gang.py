"""The training processes of one machine, started, watched and ended together.

They get torchrun's environment and may as well be started by torchrun. Here they are started directly, since torchrun
returns 1 whatever happened, kills after 30 seconds what is still saving, and does not notice a hang.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from kindling_api.v1alpha1.status import Failure, Reason
from kindling_storage.hold import Hold
from kindling_trainer.stopping import EXIT_BASE

POLL_SECONDS = 0.1
SETTLE_SECONDS = 3.0
"""How long the others have, once one has ended badly, to say what they saw; the cause may not be the first to end."""
GRACE_SECONDS = 60.0
"""How long all have to save and leave when asked to stop; then they are killed."""
START_ALLOWANCE = 3
"""A first step may take this many times as long as a later one: libraries load, the compiler works."""

TELL_STACKS = signal.SIGUSR1
"""A training process that gets it writes the stacks of its threads to stderr."""
STACKS_SECONDS = 1.0
"""How long they have for that."""

ASKED_CODES = (EXIT_BASE + signal.SIGTERM, EXIT_BASE + signal.SIGINT)

Ending = Literal["finished", "stopped", "raised", "killed", "hung"]


@dataclass(frozen=True)
class Outcome:
    """How the processes ended, and what is known of the cause."""

    ending: Ending
    failure: Failure | None = None


class Gang:
    """The processes of one attempt."""

    def __init__(self, command: list[str], folder: Path, *, processes: int, attempt: int) -> None:
        """`command` is what each process runs; `folder` is an empty one for signs of life and last words."""
        self._attempt, self._folder = attempt, folder
        self._heartbeat = folder / "heartbeat"
        self._heartbeat.touch()
        self._began = self._heartbeat.stat().st_mtime
        failures = ["--failures", str(folder), "--heartbeat", str(self._heartbeat), "--parent", str(os.getpid())]
        port = _free_port()
        self._processes = [
            subprocess.Popen([*command, *failures], env=_environment(rank, processes, port))
            for rank in range(processes)
        ]

    def watch(self, hang_timeout: float, asked: list[int], held: Hold) -> Outcome:
        """Until all have ended; none outlives this call.

        Args:
            hang_timeout: seconds without a step after which they count as hung.
            asked: signals that came in; as soon as there is one, all are asked to save and leave.
            held: the right to write, without which none may go on.

        Raises:
            ConflictError: the right was lost.
        """
        try:
            while any(code is None for code in self._codes()):
                held.check()
                if asked:
                    return self._stop()
                if any(code not in (None, 0) for code in self._codes()):
                    return self._cause()
                if self._silent_for() > hang_timeout * (START_ALLOWANCE if self._is_starting() else 1):
                    return self._hung(hang_timeout)
                time.sleep(POLL_SECONDS)
            return self._cause() if any(self._codes()) else Outcome("finished")
        finally:
            self._kill()

    def _stop(self) -> Outcome:
        """Ask all to save and leave; the end of their grace kills them."""
        for process in self._processes:
            process.terminate()
        self._wait(GRACE_SECONDS)
        self._kill()
        if any(code not in (0, *ASKED_CODES) for code in self._codes()) and self._last_words():
            return self._cause()
        return Outcome("stopped" if any(self._codes()) else "finished")

    def _hung(self, silent: float) -> Outcome:
        """No step was taken for so many seconds. All say where they are; the one that cannot is the likely cause."""
        states = [(rank, _STUCK.get(_state(process.pid))) for rank, process in enumerate(self._processes)]
        for process in self._processes:
            process.send_signal(TELL_STACKS)
        self._wait(STACKS_SECONDS)
        rank, why = next(((rank, why) for rank, why in states if why), (None, None))
        what = f": process {rank} {why}" if why else "; the stacks above say where each process was"
        return Outcome("hung", self._failure("Hung", f"no step for {silent:.0f} seconds{what}", rank))

    def _cause(self) -> Outcome:
        """What went wrong first: a process ended by a signal, or else the earliest error."""
        self._wait(SETTLE_SECONDS)
        ended = self._codes()
        for rank, code in enumerate(ended):
            if code is not None and code < 0:
                name = signal.Signals(-code).name
                hint = "; the machine may have run out of memory" if name == "SIGKILL" else ""
                failure = self._failure("RankFailed", f"process {rank} was ended by {name}{hint}", rank, signal=name)
                return Outcome("killed", failure)
        if said := sorted(self._last_words(), key=lambda failure: failure.time or ""):
            return Outcome("raised", said[0])
        rank, code = next((rank, code) for rank, code in enumerate(ended) if code)
        return Outcome("raised", self._failure("RankFailed", f"process {rank} ended with exit code {code}", rank, code))

    def _last_words(self) -> list[Failure]:
        found = []
        for path in sorted(self._folder.glob("rank-*.json")):
            try:
                found.append(Failure.model_validate_json(path.read_bytes()))
            except ValidationError:  # its process was ended while it wrote
                continue
        return found

    def _failure(
        self, reason: Reason, message: str, rank: int | None, code: int | None = None, signal: str | None = None
    ) -> Failure:
        return Failure(reason=reason, message=message, attempt=self._attempt, rank=rank, exit_code=code, signal=signal)

    def _codes(self) -> list[int | None]:
        return [process.poll() for process in self._processes]

    def _is_starting(self) -> bool:
        return self._heartbeat.stat().st_mtime == self._began

    def _silent_for(self) -> float:
        return time.time() - self._heartbeat.stat().st_mtime

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(code is None for code in self._codes()):
            time.sleep(POLL_SECONDS)

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()


_STUCK = {"T": "is stopped", "t": "is stopped by a debugger", "D": "waits for a disk or device that does not answer"}


def _state(process: int) -> str:
    """The kernel's letter for what a process does (proc(5), /proc/pid/stat); "" where it does not tell."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


def _environment(rank: int, processes: int, port: int) -> dict[str, str]:
    """torchrun's variables for one process of a machine; cores are shared out evenly."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return {
        "OMP_NUM_THREADS": str(max(1, cores // processes)),
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
