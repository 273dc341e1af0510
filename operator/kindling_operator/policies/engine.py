"""What a run needs beside Kubernetes: KubeRay for a build with workers, Kueue for a queue."""

from __future__ import annotations

from kindling_api.v1alpha1.dataset_build import DatasetBuild
from kindling_operator.draft import Draft

LOOK_AGAIN_SECONDS = 15.0

_NO_RAY = (
    "spec.engine.workers needs KubeRay, and this cluster knows no RayJob. Install the KubeRay operator, and the build "
    "starts by itself; or create it with workers: 0, which builds in one pod."
)
_NO_KUEUE = (
    "spec.queue is {queue}, and this cluster has no Kueue that would admit the run. Install Kueue, and the run starts "
    "by itself; or remove spec.queue."
)


def engine(draft: Draft) -> Draft:
    """Without it the run waits, for it may be installed at any time; pods that run already go on."""
    document, child = draft.document, draft.child
    if not draft.world.ray_installed and isinstance(document, DatasetBuild) and document.spec.engine.workers:
        return draft.set_condition("Running", "False", "EngineMissing", _NO_RAY, event="Warning").stop()
    waits = child is None or (child.is_suspended and child.ending is None)
    if not draft.world.kueue_installed and document.spec.queue is not None and waits:
        message = _NO_KUEUE.format(queue=document.spec.queue)
        draft = draft.clear_condition("Queued", "KueueMissing", message)
        draft = draft.set_condition("Running", "False", "KueueMissing", message, event="Warning")
        return draft.requeue_within(LOOK_AGAIN_SECONDS).stop()
    return draft
