"""When training processes are started again, and when the run has failed.

They are started again in place: the launchers, and so the pods, stay. What a launcher cannot mend ends it, and on a
cluster the operator decides whether new pods follow.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from kindling_api.errors import EXIT_SIGNALLED
from kindling_api.logs import say
from kindling_api.quantities import seconds
from kindling_api.v1alpha1.status import Failure, is_secondary
from kindling_runtime.failure import FailedError
from kindling_storage.lock import Lock
from kindling_storage.outage import outage
from kindling_trainer.checkpoint.folders import Folder, folders
from kindling_trainer.launch.membership import LeaderConnection, Members
from kindling_trainer.launch.node import attempt_identity
from kindling_trainer.launch.request import Request
from kindling_trainer.launch.workers import PeerFailure, WorkerGroup, WorkersOutcome

BARREN_RESTARTS = 2
"""After so many starts in a row without a new checkpoint, another would end like them."""

MEMORY_EVENTS = Path("/sys/fs/cgroup/memory.events")
"""Where the kernel counts what it ended in this container since memory ran out (cgroup v2)."""

log = logging.getLogger(__name__)


def lead(request: Request, held: Lock) -> None:
    """Start the processes, and start them again where that may help, until the model is committed.

    Args:
        held: the right to write in the run's folder.

    Raises:
        FailedError: the run, or this attempt at it, has failed or was asked to stop.
    """
    node, started = request.node, time.time()
    limit = max(0, request.run.spec.restart.max_restarts - request.run.restarts)
    members = Members(_identity(request), node.nodes - 1, node.launcher_port if node.nodes > 1 else None)
    found = folders(request.store)
    attempt, saved, barren, killed = _next_attempt(found, request.run.attempt), _saved(found), 0, _killed_for_memory()
    with closing(members):
        while True:
            restarts = len(request.restarts)
            own = _start(request, restarts, attempt + restarts, started, held, members.ended)
            if own.ending == "finished":
                return
            if own.ending == "stopped":
                raise FailedError(_stopped(request, own))
            everywhere = members.gather(own)
            if request.asked:
                raise FailedError(_stopped(request, own))
            before, saved = saved, _saved(folders(request.store))
            barren = 0 if saved > before else barren + 1
            cause = _cause(everywhere or [own])
            failure = _verdict(cause, saved, restarts=restarts, limit=limit, barren=barren)
            out_of_memory = request.managed and _killed_for_memory() > killed
            if failure is not None or everywhere is None or out_of_memory:
                raise FailedError(failure if failure is not None and not request.managed else _seen(request, own))
            assert cause.failure is not None
            request.restarts.append(cause.failure)
            log.warning("%s; restart %d of %d, from step %d", cause.failure.message, restarts + 1, limit, saved)
            members.start_again()


def follow(request: Request) -> None:
    """Start the processes of a machine that is not the first, as often as that one's launcher does.

    Raises:
        FailedError: this attempt at the run has failed or was asked to stop.
    """
    node, started = request.node, time.time()
    generation: int | None = 0
    with closing(LeaderConnection(_identity(request), node.index, (node.master, node.launcher_port))) as leader:
        while generation is not None:
            own = _start(request, generation, request.run.attempt + generation, started, None, leader.ended)
            leader.report(own)
            if own.ending == "stopped":
                raise FailedError(_stopped(request, own))
            if own.ending == "finished":
                return
            generation = leader.next_generation()
    raise FailedError(_seen(request, own))


def _cause(outcomes: Sequence[WorkersOutcome]) -> WorkersOutcome:
    """What went wrong first; an error that only tells of the loss of others comes after all else, and a hang whose
    process is known before the others."""

    def place(outcome: WorkersOutcome) -> tuple[bool, bool, str]:
        assert outcome.failure is not None
        return is_secondary(outcome.failure), outcome.failure.rank is None, outcome.failure.time or ""

    return min(outcomes, key=place)


def _verdict(cause: WorkersOutcome, saved: int, *, restarts: int, limit: int, barren: int) -> Failure | None:
    """How the run has failed; None if its processes are to be started again, as they are where one was killed or hung,
    or where they lost contact and none knows why.

    Any other Python error is not retried: it would come back.
    """
    assert cause.failure is not None
    if cause.ending == "raised" and not is_secondary(cause.failure):
        return cause.failure
    if restarts < limit and barren < BARREN_RESTARTS:
        return None
    why = "restart.maxRestarts is reached" if restarts >= limit else f"{barren} attempts saved nothing new"
    reason = "RestartsExhausted" if restarts else cause.failure.reason
    message = f"{cause.failure.message}; {why}. {_kept(saved)}"
    return cause.failure.model_copy(update={"reason": reason, "message": message})


def _seen(request: Request, own: WorkersOutcome) -> Failure:
    """What this machine has seen of the attempt's end; whether another attempt is worth its while, others decide."""
    assert own.failure is not None
    return own.failure.model_copy(update={"attempt": request.run.attempt})


def _stopped(request: Request, own: WorkersOutcome) -> Failure:
    """The run was asked to stop: this launcher, or else that of another machine."""
    kept = "What was saved is kept." if request.managed else _kept(_saved(folders(request.store)))
    code = EXIT_SIGNALLED + request.asked[0] if request.asked else own.exit_code
    return Failure(reason="SuspendedByUser", message=f"Stopped. {kept}", exit_code=code)


def _kept(saved: int) -> str:
    return f"The state after step {saved} is kept; run the same again to go on." if saved else "Nothing was saved yet."


def _start(
    request: Request,
    generation: int,
    attempt: int,
    started: float,
    held: Lock | None,
    elsewhere: Callable[[], PeerFailure | None],
) -> WorkersOutcome:
    """Start all processes of this machine once, and watch them until they have ended."""
    arguments = [str(request.runfile), "--attempt", str(attempt), "--generation", str(generation)]
    arguments += ["--started", str(started), "--log", request.log]
    if request.progress is not None:
        arguments += ["--progress", str(request.progress)]
    if held is not None:
        arguments += ["--lock", held.token]
    node = request.node
    processes = "process" if node.processes == 1 else "processes"
    say(log, f"node {node.index + 1} of {node.nodes} starts {node.processes} training {processes}")
    with tempfile.TemporaryDirectory(prefix="kindling-run-", ignore_cleanup_errors=True) as folder:
        workers = WorkerGroup(request.server, arguments, Path(folder), node=node, attempt=attempt)
        hang_timeout = seconds(request.run.spec.restart.hang_timeout)
        return workers.watch(hang_timeout, request.asked, held, excuse=outage, elsewhere=elsewhere)


def _identity(request: Request) -> str:
    """By what the launchers of one attempt know one another."""
    return f"{attempt_identity(request.run)}, {request.run.key}"


def _next_attempt(found: Mapping[Folder, bool], attempt: int) -> int:
    """A number that no start before had, so that no checkpoint's folder is written twice; each further start has the
    next."""
    return max([attempt, *(folder.attempt + 1 for folder in found)])


def _saved(found: Mapping[Folder, bool]) -> int:
    """The step of the newest checkpoint."""
    return max((folder.step for folder, committed in found.items() if committed), default=0)


def _killed_for_memory() -> int:
    """How many processes of this container the kernel has ended since memory ran out; 0 where it does not tell."""
    try:
        counts = dict(line.split() for line in MEMORY_EVENTS.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(counts.get("oom_kill", 0))
