"""The parent of a run's training processes, and PID 1 of its pod: checks, locks the folder, starts, restarts, reports.

It imports no torch: a finished run is recognised, and a wrong one refused, at once. Where a run has several machines,
each has a launcher; that of the first does what is to be done once.
"""

from __future__ import annotations

from kindling_api.v1alpha1.products import MODEL_FOLDER, ModelManifest
from kindling_api.v1alpha1.status import AlignmentResult, ModelResult
from kindling_storage.commit import discard_damaged, read_whole
from kindling_storage.lock import LOCK, lock
from kindling_storage.names import Published, publish
from kindling_storage.origin import record_origin
from kindling_trainer.data.inputs import check_inputs, learns_tokens
from kindling_trainer.launch.publish import check_target, put_on_hub
from kindling_trainer.launch.request import Request
from kindling_trainer.launch.supervise import follow, lead
from kindling_trainer.launch.tracking import check_tracker, tracked
from kindling_trainer.telemetry.metrics import perplexity


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
            follow(request)
    else:
        with tracked(request):
            pass  # what a tracker that was away has missed
    return _publish(request, finished) if request.node.leads and finished is not None else None


def _lead(request: Request) -> ModelManifest:
    """Train, as the only machine or the first."""
    check_inputs(request.run)
    check_target(request.run.spec.publish)
    check_tracker(request)
    with lock(request.store, LOCK, request.run) as held:
        discard_damaged(request.store, ModelManifest)
        record_origin(request.store, request.run)
        with tracked(request):
            lead(request, held)
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
        best=finished.best,
        published=put_on_hub(store, finished, run.spec.publish) if run.spec.publish else None,
    )
    if run.kind == "PretrainRun":
        return result
    return AlignmentResult(**dict(result), evaluation=finished.evaluation or {})
