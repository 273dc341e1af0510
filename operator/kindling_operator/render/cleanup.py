"""The Job that deletes a run's product from the store, after its document, where the document's retention says so."""

from __future__ import annotations

import json

from kindling_api.base import GROUP
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.render.attempt import SHORT_KINDS, run_labels
from kindling_operator.render.pods import Container, fixed, pod_template
from kindling_operator.settings import Settings
from kindling_operator.world import Object

UID_LABEL = f"{GROUP}/uid"
"""Says whose data it deletes: an earlier document may have had the same name."""
TRIES = 6
KEPT_SECONDS = 600
"""How long a Job that has ended can still be looked at."""


def cleanup_job(settings: Settings, resource: Object, storage: StorageSpec, folder: str) -> Object:
    """Deletes `folder`, as in `models/0123456789abcdef`, from `storage`.

    It has no owner, since garbage collection deletes what a document owns as soon as that document is to go.
    """
    kind, metadata = resource["kind"], resource["metadata"]
    namespace = metadata.get("namespace", "default")
    place = json.dumps(storage.document(), sort_keys=True)
    options = f"--storage-json={place}", f"--prefix={folder}", f"--name={kind}/{namespace}/{metadata['name']}"
    container = Container(
        image=settings.images.dataprep,
        resources=fixed("500m", "512Mi"),
        command=("python", "-m", "kindling_storage.cleanup", *options),
        secret=storage.credentials_secret,
    )
    labels = run_labels(kind, metadata["name"]) | {UID_LABEL: metadata.get("uid", "")}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{metadata['name']}-{SHORT_KINDS[kind]}-delete",
            "namespace": namespace,
            "labels": labels,
        },
        "spec": {
            "backoffLimit": TRIES,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": pod_template(settings, labels, container),
        },
    }
