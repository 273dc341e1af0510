"""A build with workers needs KubeRay."""

from __future__ import annotations

from kindling_api.v1alpha1.dataset_build import DatasetBuild
from kindling_operator.draft import Draft

_MISSING = (
    "spec.engine.workers needs KubeRay, and this cluster knows no RayJob. Install the KubeRay operator, and the build "
    "starts by itself; or create it with workers: 0, which builds in one pod."
)


def engine(draft: Draft) -> Draft:
    """Without it the build waits, for it may be installed at any time."""
    document = draft.document
    if draft.world.ray_installed or not isinstance(document, DatasetBuild) or not document.spec.engine.workers:
        return draft
    return draft.say("Running", "False", "EngineMissing", _MISSING, note="Warning").settle()
