"""The training processes of one machine, started, watched and ended together.

They get torchrun's environment and may as well be started by torchrun. Here they are started directly, since torchrun
returns 1 whatever happened, kills after 30 seconds what is still saving, and does not notice a hang.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from kindling_api.bounds import LAUNCHER_SETTLE_SECONDS, START_ALLOWANCE
from kindling_api.errors import EXIT_SIGNALLED
from kindling_api.v1alpha1.status import Failure, Reason, is_secondary
from kindling_runtime.failure import how_it_ended, signal_name
from kindling_runtime.fork_server import ForkServer
from kindling_storage.lock import Lock
from kindling_trainer.launch.node import Node

POLL_SECONDS = 0.1
STUCK_STEPS, STUCK_SECONDS = 3, 10.0
"""Asked to stop, they answer after the step they are in. Where none answers within this many times the longest step, or
these seconds if that is more, they wait for others that are gone, and what they hold is needed for the next attempt."""

DUMP_STACKS = signal.SIGUSR1
"""A training process that gets it writes the stacks of its threads to stderr."""
STACKS_SECONDS = 1.0
"""How long they have for that."""

HEARTBEAT, RENDEZVOUS, ENDING = "heartbeat", "rendezvous", "ending"
"""Files in the processes' folder, touched by the machine's first process: after each step, while others have yet to
come, and when the last step was taken or no more are, so that what follows is no step."""

ASKED_CODES = (EXIT_SIGNALLED + signal.SIGTERM, EXIT_SIGNALLED + signal.SIGINT)

Ending = Literal["finished", "stopped", "raised", "killed", "hung"]


@dataclass(frozen=True)
class WorkersOutcome:
    """How the processes ended, and what is known of the cause."""

    ending: Ending
    failure: Failure | None = None
    exit_code: int = 0
    """What the processes exited with, where they were stopped."""


@dataclass(frozen=True)
class PeerFailure:
    """How the processes of another machine ended, without which those of this one cannot go on."""

    ending: Ending
    why: str


class WorkerGroup:
    """The processes of one attempt on this machine; there may be others, elsewhere, with which they work."""

    def __init__(
        self, server: ForkServer, arguments: list[str], folder: Path, *,
        node: Node, attempt: int, save_seconds: float,
    ) -> None:  # fmt: skip
        """
        Args:
            arguments: those of each process.
            folder: an empty one, for signs of life and last words.
            save_seconds: how long processes that were asked to stop have to save and leave.
        """
        self._attempt, self._folder, self._node, self._save_seconds = attempt, folder, node, save_seconds
        self._heartbeat = folder / HEARTBEAT
        self._heartbeat.touch()
        self._signs = self._signs_of_life()
        self._heard = self._stepped = time.monotonic()  # clocks of files may be set: only that they change counts
        self._steps, self._longest = 0, 0.0  # seen ones, and seconds of the longest one
        self._processes = [
            server.start(
                f"rank-{node.rank(local_rank)}", [*arguments, "--folder", str(folder)], node.environment(local_rank)
            )
            for local_rank in range(node.processes)
        ]

    def watch(
        self,
        hang_timeout: float,
        asked: list[int],
        held: Lock | None,
        excuse: Callable[[], object],
        elsewhere: Callable[[], PeerFailure | None],
        is_due: Callable[[], bool] = lambda: False,
    ) -> WorkersOutcome:
        """Until all have ended; none outlives this call.

        Args:
            hang_timeout: seconds without a step after which they count as hung; on the first machine only, since the
                first process speaks for all.
            asked: signals that came in; as soon as there is one, all are asked to save and leave.
            held: the right to write, without which none may go on; None where another machine holds it.
            excuse: silence does not count while this gives something.
            elsewhere: gives what ends these processes, too, once there is something.
            is_due: whether they are to save and leave without being asked from outside.

        Raises:
            ConflictError: the right was lost.
        """
        try:
            while any(code is None for code in self._codes()):
                self._listen()
                if held is not None:
                    held.check()
                if asked or any(code in ASKED_CODES for code in self._codes()) or is_due():
                    return self._stop()
                if any(self._codes()):
                    return self._cause()
                if (other := elsewhere()) is not None:
                    return self._ended_elsewhere(other, hang_timeout)
                if excuse():
                    self._heard = time.monotonic()
                if self._node.leads and self._is_silent(hang_timeout):
                    return self._hung(hang_timeout)
                time.sleep(POLL_SECONDS)
            return self._ended()
        finally:
            self._kill()

    def _ended(self) -> WorkersOutcome:
        """All have ended by themselves."""
        codes = [code for code in self._codes() if code]
        if not codes:
            return WorkersOutcome("finished")
        return self._cause() if set(codes) - set(ASKED_CODES) else WorkersOutcome("stopped", exit_code=codes[0])

    def _stop(self) -> WorkersOutcome:
        """Ask all to save and leave; the end of their grace kills them.

        Where some left before there was anything to save, others lose contact with them: that is no failure.
        """
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        self._wait(self._stop_timeout())
        if (self._folder / ENDING).exists():
            self._wait(asked + self._save_seconds - time.monotonic())
        self._kill()
        if errors := [failure for failure in self._last_words() if not is_secondary(failure)]:
            return WorkersOutcome("raised", min(errors, key=lambda failure: failure.time or ""))
        code = next((code for code in self._codes() if code in ASKED_CODES), EXIT_SIGNALLED + signal.SIGTERM)
        return WorkersOutcome("stopped", exit_code=code) if any(self._codes()) else WorkersOutcome("finished")

    def _stop_timeout(self) -> float:
        """Seconds in which processes that do not wait for somebody who is gone answer that they were asked to stop.

        Before their first step they have little to lose, and may be where nothing reaches them: torch looks for the
        first machine, which is perhaps gone, without looking at signals.
        """
        if not self._longest:
            return min(self._save_seconds, START_ALLOWANCE * STUCK_SECONDS)
        return min(self._save_seconds, max(STUCK_SECONDS, STUCK_STEPS * self._longest))

    def _hung(self, silent: float) -> WorkersOutcome:
        """No step was taken for so many seconds. All say where they are; the one that cannot is the likely cause."""
        states = [(self._node.rank(i), _STUCK.get(_state(process.pid))) for i, process in enumerate(self._processes)]
        for process in self._processes:
            process.send_signal(DUMP_STACKS)
        self._wait(STACKS_SECONDS)
        rank, why = next(((rank, why) for rank, why in states if why), (None, None))
        what = f": process {rank} {why}" if why else "; the stacks above say where each process was"
        return WorkersOutcome("hung", self._failure("Hung", f"no step for {silent:.0f} seconds{what}", rank))

    def _ended_elsewhere(self, other: PeerFailure, hang_timeout: float) -> WorkersOutcome:
        """Processes of another machine failed, were stopped, or it is lost; these may tell more of the cause."""
        if other.ending == "hung":
            return self._hung(hang_timeout)
        if other.ending == "stopped":
            return self._stop()
        self._wait(LAUNCHER_SETTLE_SECONDS)
        if any(self._codes()):
            return self._cause()
        return WorkersOutcome("raised", self._failure("RankFailed", f"ended, since {other.why}", None))

    def _cause(self) -> WorkersOutcome:
        """What went wrong first: a process ended by a signal, or else the earliest error.

        An error that only tells of the loss of others comes after all else, and so does SIGABRT: libraries answer with
        it to such a loss, but where all processes are here and none tells of another cause, it is the cause.
        """
        self._wait(LAUNCHER_SETTLE_SECONDS)
        reported = sorted(self._last_words(), key=lambda failure: (is_secondary(failure), failure.time or ""))
        ended = [(local_rank, code) for local_rank, code in enumerate(self._codes()) if code]
        killed = [(local_rank, -code) for local_rank, code in ended if code < 0]
        killed.sort(key=lambda each: each[1] == signal.SIGABRT)
        explained = reported and (self._node.nodes > 1 or not is_secondary(reported[0]))
        if killed and not (killed[0][1] == signal.SIGABRT and explained):
            return WorkersOutcome("killed", self._killed(*killed[0]))
        if reported:
            return WorkersOutcome("raised", reported[0])
        rank, code = self._node.rank(ended[0][0]), ended[0][1]
        failure = self._failure("RankFailed", how_it_ended(f"process {rank}", code), rank, code)
        return WorkersOutcome("raised", failure)

    def _killed(self, local_rank: int, number: int) -> Failure:
        rank = self._node.rank(local_rank)
        message = how_it_ended(f"process {rank}", -number)
        return self._failure("RankFailed", message, rank, signal=signal_name(-number))

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
        time = datetime.now(UTC).isoformat(timespec="microseconds")
        return Failure(
            reason=reason, message=message, attempt=self._attempt, rank=rank, exit_code=code, signal=signal, time=time
        )

    def _codes(self) -> list[int | None]:
        return [process.poll() for process in self._processes]

    def _listen(self) -> None:
        """Notice signs of life, and learn how long steps take here; the first one, for which much is made ready, is
        none to go by."""
        before, self._signs, now = self._signs, self._signs_of_life(), time.monotonic()
        if self._signs != before:
            self._heard = now
        if self._signs[0] != before[0]:
            if self._steps:
                self._longest = max(self._longest, now - self._stepped)
            self._steps, self._stepped = self._steps + 1, now

    def _signs_of_life(self) -> tuple[int, int]:
        """When the newest step ended, and when a process last waited for other machines, which is no silence; by the
        wall clock, in nanoseconds."""
        rendezvous = self._folder / RENDEZVOUS
        return self._heartbeat.stat().st_mtime_ns, rendezvous.stat().st_mtime_ns if rendezvous.exists() else 0

    def _is_silent(self, hang_timeout: float) -> bool:
        """Whether there was no sign of life for too long."""
        return time.monotonic() - self._heard > hang_timeout * (1 if self._steps else START_ALLOWANCE)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(code is None for code in self._codes()):
            time.sleep(POLL_SECONDS)

    def _kill(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
        for process in self._processes:
            process.wait()


_STUCK = {"T": "is stopped", "t": "is stopped by a debugger", "D": "waits for a disk or device that does not answer"}


def _state(process: int | None) -> str:
    """The kernel's letter for what a process does (proc(5), /proc/pid/stat); "" where it does not tell."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""
