"""Another default storage moves nothing: what was accepted is found, continued and deleted where it is."""

from __future__ import annotations

import pytest

from kubenode.client import wait_until
from kubenode.installation import Installation
from kubenode.store import Store
from runs import FAST, ONE_POD, Run, dataset, pretraining, upload

pytestmark = pytest.mark.serial

SHORT = {"steps": 20, **FAST}
LONG = 900
"""Steps: more than are taken while the operator is installed anew, from the first checkpoint on."""


def test_another_default_storage_moves_nothing_that_was_accepted(
    kindling: Installation, minio: Store, corpus: Run
) -> None:
    cluster, namespace, old = kindling.cluster, kindling.runs, f"s3://{kindling.bucket}/runs"
    texts = upload(kindling, "kept", [{"text": f"What is kept is told in {number} words."} for number in range(200)])
    kept = dataset("kept", retention="Delete", sources=[texts], tokenizer={"train": {"vocabSize": 300}})
    cluster.apply(kept, namespace=namespace)
    retained, running = Run(cluster, "DatasetBuild", "kept", namespace), Run(cluster, "PretrainRun", "stays", namespace)
    folder = retained.finish()["result"]["uri"].removeprefix(f"s3://{kindling.bucket}/")
    cluster.apply(pretraining("stays", corpus.name, training={**SHORT, "steps": LONG}, **ONE_POD), namespace=namespace)
    saved = running.wait("a checkpoint is committed", lambda status: status.get("checkpoint", {}).get("step"), 180)
    assert minio.names(kindling.bucket, folder)

    new = minio.new_bucket("moved")
    kindling.upgrade(storage={**kindling.values()["storage"], "uri": f"s3://{new}/runs"})
    try:
        for pod in running.pods():
            cluster.delete("pod", pod["metadata"]["name"], namespace, "--wait=false")
        running.wait("goes on", lambda status: status["attempt"] == 2 and status.get("progress", {}).get("step"), 180)
        status = running.status()
        assert status["storage"]["uri"] == old
        assert status["checkpoint"]["step"] >= saved and status["checkpoint"]["uri"].startswith(f"{old}/")

        cluster.apply(pretraining("refers", corpus.name, training=SHORT, **ONE_POD), namespace=namespace)
        referring = Run(cluster, "PretrainRun", "refers", namespace)
        end = referring.finish()
        assert end["result"]["uri"].startswith(f"s3://{new}/runs/"), "what is accepted now goes to the new one"
        assert end["inputs"][0]["uri"].startswith(f"{old}/"), "and finds what is in the old one"

        retained.delete()
        wait_until("its data is gone", lambda: not minio.names(kindling.bucket, folder), 60)
        events = cluster.kubectl(
            "get", "events", "-n", namespace, "--field-selector=reason=CleanUpFailed", "-o", "name"
        )
        assert events == ""

        end = running.finish()
        assert end["result"]["uri"].startswith(f"{old}/") and end["restarts"] == 0
        assert not [name for name in minio.names(new) if name.startswith(end["result"]["uri"].removeprefix(f"{old}/"))]
        log = cluster.logs(running.pods()[-1]["metadata"]["name"], namespace)
        assert "continues from checkpoint" in log, log
    finally:
        kindling.upgrade()
        running.delete()
        Run(cluster, "PretrainRun", "refers", namespace).delete()
