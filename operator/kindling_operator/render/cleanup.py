"""The Job that deletes a run's product from the store, after its document, where the document's retention says so."""

from __future__ import annotations

import json

from kindling_api.v1alpha1.pod_template import PodTemplate
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.labels import run_labels
from kindling_operator.render.attempt import SHORT_KINDS, child_name
from kindling_operator.render.pods import Container, fixed, pod_template
from kindling_operator.render.secrets import of_storage
from kindling_operator.render.templates import for_helpers, with_template
from kindling_operator.settings import Settings
from kindling_operator.world import Object

TRIES = 6
KEPT_SECONDS = 600
"""How long a Job that has ended can still be looked at."""


def cleanup_job(
    settings: Settings,
    resource: Object,
    storage: StorageSpec,
    folder: str,
    *,
    template: PodTemplate | None = None,
    must_exist: bool = False,
) -> Object:
    """Deletes `folder`, as in `models/0123456789abcdef`, from `storage`; with `must_exist`, finding nothing fails.
    Without a `template` its pod has the installation's.

    It has no owner, since garbage collection deletes what a document owns as soon as that document is to go; whose data
    it deletes is in a label. What another document with the same name or the same folder uses by then, it leaves.
    """
    kind, metadata = resource["kind"], resource["metadata"]
    namespace, uid = metadata.get("namespace", "default"), metadata["uid"]
    place = json.dumps(storage.document(), sort_keys=True)
    options = [f"--storage-json={place}", f"--prefix={folder}"]
    options += [f"--name={kind}/{namespace}/{metadata['name']}", f"--uid={uid}"]
    options += ["--log=json", *(["--must-exist"] if must_exist else [])]
    container = Container(
        image=settings.images.dataprep,
        resources=fixed("500m", "512Mi"),
        command=("python", "-m", "kindling_storage.cleanup", *options),
        secrets=of_storage(storage),
    )
    labels = run_labels(kind, metadata["name"], uid)
    pod = pod_template(settings, {"labels": labels}, container)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": child_name(metadata["name"], SHORT_KINDS[kind], uid, "delete"),
            "namespace": namespace,
            "labels": labels,
        },
        "spec": {
            "backoffLimit": TRIES,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": with_template(pod, for_helpers(template or settings.pod_template), labels),
        },
    }
