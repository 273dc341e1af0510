"""When training processes are started again, and when the run has failed.

They are started again in place: the launchers, and so the pods, stay. What a launcher cannot mend ends it, and on a
cluster the operator decides whether new pods follow. An elastic run goes on without machines that are gone.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from kindling_api.errors import EXIT_SIGNALLED
from kindling_api.logs import say
from kindling_api.quantities import seconds
from kindling_api.v1alpha1.status import Failure
from kindling_runtime.failure import FailedError
from kindling_storage.lock import Lock
from kindling_storage.outage import outage
from kindling_trainer.checkpoint.folders import Folder, folders
from kindling_trainer.launch.leader import LeaderConnection
from kindling_trainer.launch.membership import Members
from kindling_trainer.launch.node import Node, attempt_identity
from kindling_trainer.launch.orders import Order
from kindling_trainer.launch.request import Request
from kindling_trainer.launch.resizing import Resizing, is_elastic
from kindling_trainer.launch.verdict import cause_of, is_final, verdict, what_is_kept
from kindling_trainer.launch.workers import PeerFailure, WorkerGroup, WorkersOutcome

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
    node, elastic = request.node, _is_elastic(request)
    port = node.launcher_port if node.nodes > 1 else None
    with closing(Members(_identity(request), node.nodes - 1, port, elastic=elastic)) as members:
        _Lead(request, held, members, Resizing(request, members) if elastic else None).run()


class _Lead:
    """The starts of one attempt, as the first machine's launcher decides on them."""

    def __init__(self, request: Request, held: Lock, members: Members, resizing: Resizing | None) -> None:
        self._request, self._held, self._members, self._resizing = request, held, members, resizing
        self._limit = max(0, request.run.spec.restart.max_restarts - request.run.restarts)
        found = folders(request.store)
        self._attempt, self._saved = _next_attempt(found, request.run.attempt), _saved(found)
        self._barren, self._killed = 0, _killed_for_memory()
        self._started = time.time()

    def run(self) -> None:
        """Start them as often as it takes."""
        if self._resizing is not None and not self._resizing.begin():
            raise FailedError(_stopped(self._request, None))
        while (own := self._start()).ending != "finished":
            self._decide(own)

    def _start(self) -> WorkersOutcome:
        request, members, resizing = self._request, self._members, self._resizing
        return _start(
            request,
            request.node if resizing is None else request.node.among(0, resizing.nodes),
            generation=members.generation,
            attempt=self._attempt + members.generation,
            started=self._started,
            held=self._held,
            elsewhere=members.ended,
            is_due=resizing.is_due if resizing is not None else lambda: False,
        )

    def _decide(self, own: WorkersOutcome) -> None:
        """Begin another generation.

        Raises:
            FailedError: there is to be none.
        """
        request, resizing = self._request, self._resizing
        if own.ending == "stopped" and (request.asked or resizing is None):
            raise FailedError(_stopped(request, own))
        outcomes = self._members.gather(own)
        if request.asked:
            raise FailedError(_stopped(request, own))
        before, self._saved = self._saved, _saved(folders(request.store))
        self._barren = 0 if self._saved > before else self._barren + 1
        if request.managed and _killed_for_memory() > self._killed:
            raise FailedError(_seen(request, own))
        if resizing is None:
            self._restart(own, outcomes)
        else:
            self._resize(resizing, own, outcomes)

    def _restart(self, own: WorkersOutcome, outcomes: list[WorkersOutcome]) -> None:
        """Begin it with all machines, or with none."""
        request = self._request
        if len(self._members.ready()) < request.node.nodes - 1:
            raise FailedError(_seen(request, own))
        failure = self._count(outcomes)
        if failure is not None:
            raise FailedError(_seen(request, own) if request.managed else failure)
        self._members.start()

    def _resize(self, resizing: Resizing, own: WorkersOutcome, outcomes: list[WorkersOutcome]) -> None:
        """Begin it with the machines that are here. That others are gone, or have come, is no failure."""
        failed = [outcome for outcome in outcomes if outcome.failure is not None]
        cause = cause_of(failed) if failed else None
        is_failure = cause is not None and own.ending != "stopped" and (is_final(cause) or not resizing.lost())
        if is_failure and self._count(failed) is not None:
            raise FailedError(_seen(self._request, cause))
        if not resizing.go_on(self._saved):
            raise FailedError(_stopped(self._request, own))

    def _count(self, outcomes: list[WorkersOutcome]) -> Failure | None:
        """How the run has failed; where it has not, the restart that follows is counted."""
        cause, restarts = cause_of(outcomes), len(self._request.restarts)
        failure = verdict(cause, self._saved, restarts=restarts, limit=self._limit, barren=self._barren)
        if failure is None:
            assert cause.failure is not None
            self._request.restarts.append(cause.failure)
            what, number = cause.failure.message, restarts + 1
            log.warning("%s; restart %d of %d, from step %d", what, number, self._limit, self._saved)
        return failure


def follow(request: Request) -> None:
    """Start the processes of a machine that is not the first, as often as that one's launcher does.

    Raises:
        FailedError: this attempt at the run has failed or was asked to stop.
    """
    node, started, elastic = request.node, time.time(), _is_elastic(request)
    address, own = (node.master, node.launcher_port), None
    with closing(LeaderConnection(_identity(request), node.index, address, elastic=elastic)) as leader:
        order = leader.next_generation(request.asked) if elastic else Order()
        while order is not None:
            own = _start(
                request,
                node if order.members is None else node.among(leader.place(order), len(order.members)),
                generation=order.generation,
                attempt=request.run.attempt + order.generation,
                started=started,
                held=None,
                elsewhere=leader.ended,
            )
            leaving = bool(request.asked) or (not elastic and own.failure is None)
            leader.report(own, leaving=leaving)
            if own.ending == "finished" and not elastic:
                return
            order = None if leaving else leader.next_generation(request.asked)
        finished = leader.is_over and (own is None or own.ending == "finished")
    if finished and elastic:
        return
    if request.asked or (own is not None and own.ending == "stopped"):
        raise FailedError(_stopped(request, own))
    raise FailedError(_seen(request, own))


def _start(
    request: Request,
    node: Node,
    *,
    generation: int,
    attempt: int,
    started: float,
    held: Lock | None,
    elsewhere: Callable[[], PeerFailure | None],
    is_due: Callable[[], bool] = lambda: False,
) -> WorkersOutcome:
    """Start all processes of this machine once, and watch them until they have ended."""
    arguments = [str(request.runfile), "--attempt", str(attempt), "--generation", str(generation)]
    arguments += ["--started", str(started), "--log", request.log]
    if request.progress is not None:
        arguments += ["--progress", str(request.progress)]
    if held is not None:
        arguments += ["--lock", held.token]
    if _is_elastic(request):
        arguments += ["--nodes", str(node.nodes)]
    processes = "process" if node.processes == 1 else "processes"
    say(log, f"node {node.index + 1} of {node.nodes} starts {node.processes} training {processes}")
    with tempfile.TemporaryDirectory(prefix="kindling-run-", ignore_cleanup_errors=True) as folder:
        server, save_seconds = request.server, request.save_seconds
        workers = WorkerGroup(server, arguments, Path(folder), node=node, attempt=attempt, save_seconds=save_seconds)
        hang_timeout = seconds(request.run.spec.restart.hang_timeout)
        return workers.watch(hang_timeout, request.asked, held, excuse=outage, elsewhere=elsewhere, is_due=is_due)


def _seen(request: Request, own: WorkersOutcome | None) -> Failure:
    """What this machine has seen of the attempt's end; whether another attempt is worth its while, others decide."""
    if own is None or own.failure is None:
        return Failure(reason="RankFailed", message="contact with node 0 is lost", attempt=request.run.attempt)
    return own.failure.model_copy(update={"attempt": request.run.attempt})


def _stopped(request: Request, own: WorkersOutcome | None) -> Failure:
    """The run was asked to stop: this launcher, or else that of another machine."""
    kept = "What was saved is kept." if request.managed else what_is_kept(_saved(folders(request.store)))
    code = EXIT_SIGNALLED + request.asked[0] if request.asked else own.exit_code if own is not None else None
    return Failure(reason="SuspendedByUser", message=f"Stopped. {kept}", exit_code=code)


def _is_elastic(request: Request) -> bool:
    return request.managed and is_elastic(request.run)


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
