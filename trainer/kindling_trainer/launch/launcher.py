"""The parent of a run's training processes, and PID 1 of its pod: checks, locks the folder, starts, restarts, reports.

It imports no torch: a finished run is recognised, and a wrong one refused, at once. Where a run has several machines,
each has a launcher; that of the first does what is to be done once, and none starts anything again, for whoever
started the launchers starts them all again.
"""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from kindling_api.errors import EXIT_SIGNALLED
from kindling_api.logs import say
from kindling_api.quantities import seconds
from kindling_api.v1alpha1.products import MODEL_FOLDER, ModelManifest, model_folder
from kindling_api.v1alpha1.status import AlignmentResult, Failure, ModelResult, is_secondary
from kindling_runtime.failure import FailedError
from kindling_runtime.fork_server import ForkServer
from kindling_storage import ObjectStore
from kindling_storage.commit import discard_damaged, read_whole
from kindling_storage.lock import LOCK, Lock, lock
from kindling_storage.names import Published, publish
from kindling_storage.origin import record_origin
from kindling_storage.outage import outage
from kindling_trainer.checkpoint.folders import folders
from kindling_trainer.data.inputs import TrainingRun, check_inputs, learns_tokens
from kindling_trainer.launch.node import Node
from kindling_trainer.launch.publish import check_target, put_on_hub
from kindling_trainer.launch.workers import WorkerGroup, WorkersOutcome
from kindling_trainer.telemetry.metrics import perplexity

PROGRAM = "kindling_trainer.train"
"""The module that each training process runs."""

BARREN_ATTEMPTS = 2
"""After so many attempts in a row without a new checkpoint, another would end like them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What this process was started for."""

    run: TrainingRun
    runfile: Path
    output: ObjectStore
    """The whole store in which the run is kept."""
    node: Node
    managed: bool
    """Whether this is one attempt, and another one is started by whoever started this."""
    progress: Path | None
    """Where the first training process says how far it is."""
    asked: list[int]
    """Signals that have come in so far; the handler appends to it."""
    server: ForkServer
    """Starts the training processes."""
    log: str = "text"
    """The form of the training processes' logs."""

    @property
    def store(self) -> ObjectStore:
        """The run's folder."""
        return self.output.child(model_folder(self.run.key))


def launch(request: Request) -> ModelResult | None:
    """Train the run to its end, over as many starts as that takes; at once where it is finished already.

    Returns:
        What came out; None on a machine that is not the run's first.

    Raises:
        FailedError: the training processes ended badly, or were asked to stop.
        UserError: the run, or what it reads, is wrong; or another process trains it.
    """
    finished = read_whole(request.store, ModelManifest)
    if finished is None:
        request.server.preload()
        if request.node.leads:
            finished = _lead(request)
        else:
            _train_once(request, request.run.attempt, None)
    return _publish(request, finished) if request.node.leads and finished is not None else None


def _lead(request: Request) -> ModelManifest:
    """Train, as the only machine or the first."""
    check_inputs(request.run)
    check_target(request.run.spec.publish)
    with lock(request.store, LOCK, request.run) as held:
        discard_damaged(request.store, ModelManifest)
        record_origin(request.store, request.run)
        attempt = _next_attempt(request.store, request.run.attempt)
        if request.managed:
            _train_once(request, attempt, held)
        else:
            _supervise(request, attempt, held)
    finished = read_whole(request.store, ModelManifest)
    assert finished is not None, "training processes that end well have committed a model"
    return finished


def _publish(request: Request, finished: ModelManifest) -> ModelResult:
    run, store = request.run, request.store
    product = Published(uri=store.uri, digest=finished.digest, key=run.key, uid=run.uid)
    publish(request.output, run.kind, run.namespace, run.name, product)
    loss = finished.validation_loss
    result = ModelResult(
        digest=finished.digest,
        uri=store.uri,
        model=f"{store.uri}/{MODEL_FOLDER}",
        steps=finished.steps,
        tokens=finished.tokens,
        loss=finished.loss,
        validation_loss=loss,
        perplexity=perplexity(loss) if loss is not None and learns_tokens(run) else None,
        divergence=finished.divergence,
        published=put_on_hub(store, finished, run.spec.publish) if run.spec.publish else None,
    )
    if run.kind == "PretrainRun":
        return result
    return AlignmentResult(**dict(result), evaluation=finished.evaluation or {})


def _train_once(request: Request, attempt: int, held: Lock | None) -> None:
    """Start the processes once; whether another attempt is worth its while is for others to decide."""
    outcome = _start(request, attempt, time.time(), held)
    if outcome.ending == "stopped":
        raise FailedError(_stopped(outcome, request.asked, "What was saved is kept."))
    if outcome.ending != "finished":
        assert outcome.failure is not None
        raise FailedError(outcome.failure.model_copy(update={"attempt": request.run.attempt}))


def _supervise(request: Request, attempt: int, held: Lock) -> None:
    """Start the processes, and start them again where that may help, until the model is committed."""
    store, started, limit = request.store, time.time(), request.run.spec.restart.max_restarts
    saved, restarts, barren = _saved_step(store), 0, 0
    while True:
        outcome = _start(request, attempt + restarts, started, held)
        if outcome.ending == "finished":
            return
        before, saved = saved, _saved_step(store)
        barren = 0 if saved > before else barren + 1
        failure = _verdict(outcome, request.asked, saved, restarts=restarts, limit=limit, barren=barren)
        if failure is not None:
            raise FailedError(failure)
        restarts += 1
        assert outcome.failure is not None
        log.warning("%s; restart %d of %d, from step %d", outcome.failure.message, restarts, limit, saved)


def _verdict(
    outcome: WorkersOutcome, asked: list[int], saved: int, *, restarts: int, limit: int, barren: int
) -> Failure | None:
    """How the run has failed; None if it is to be started again, as it is where a process was killed or hung, or where
    processes lost contact and none knows why.

    Any other Python error is not retried: it would come back.
    """
    kept = f"The state after step {saved} is kept; run the same again to go on." if saved else "Nothing was saved yet."
    if outcome.ending == "stopped":
        return _stopped(outcome, asked, kept)
    assert outcome.failure is not None
    if outcome.ending == "raised" and not is_secondary(outcome.failure):
        return outcome.failure
    if restarts >= limit or barren >= BARREN_ATTEMPTS:
        why = "restart.maxRestarts is reached" if restarts >= limit else f"{barren} attempts saved nothing new"
        reason = "RestartsExhausted" if restarts else outcome.failure.reason
        message = f"{outcome.failure.message}; {why}. {kept}"
        return outcome.failure.model_copy(update={"reason": reason, "message": message})
    return None


def _stopped(outcome: WorkersOutcome, asked: list[int], kept: str) -> Failure:
    """The run was asked to stop: this launcher, or else that of another machine."""
    code = EXIT_SIGNALLED + asked[0] if asked else outcome.exit_code
    return Failure(reason="SuspendedByUser", message=f"Stopped. {kept}", exit_code=code)


def _start(request: Request, attempt: int, started: float, held: Lock | None) -> WorkersOutcome:
    """Start all processes of this machine once, and watch them until they have ended."""
    arguments = [str(request.runfile), "--attempt", str(attempt), "--started", str(started), "--log", request.log]
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
        return workers.watch(hang_timeout, request.asked, held, excuse=outage)


def _next_attempt(store: ObjectStore, attempt: int) -> int:
    """A number that no start before had, so that no checkpoint's folder is written twice."""
    return max([attempt, *(folder.attempt + 1 for folder in folders(store))])


def _saved_step(store: ObjectStore) -> int:
    return max((folder.step for folder, committed in folders(store).items() if committed), default=0)
