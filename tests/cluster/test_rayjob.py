"""A dataset that a Ray cluster builds is the one that a single pod builds."""

from __future__ import annotations

import time

from kubenode.installation import Installation
from kubenode.store import Store
from runs import Run, dataset, storage


def test_two_nodes_build_the_very_same_dataset(kindling: Installation, minio: Store, corpus: Run) -> None:
    engine = {"workers": 2, "resources": {"cpu": "500m", "memory": "2Gi"}}
    spec = {"engine": engine, "storage": storage(kindling.bucket, "ray")}
    start = time.monotonic()
    kindling.cluster.apply(dataset("by-ray", **spec), namespace=kindling.runs)
    run = Run(kindling.cluster, "DatasetBuild", "by-ray", kindling.runs)
    run.wait("tells how far it is", lambda status: status.get("progress", {}).get("percent", 0) > 0, 150)
    nodes = {pod["spec"].get("nodeName") for pod in run.pods() if "ray.io/node-type" in pod["metadata"]["labels"]}
    assert nodes == {"node-1", "node-2"}
    result = run.finish(150)["result"]
    print(f"built by Ray on two nodes after {time.monotonic() - start:.0f} s")
    alone = corpus.status()["result"]
    assert result["digest"] == alone["digest"]
    assert shards(minio, result["uri"]) == shards(minio, alone["uri"]) != {}
    assert not run.cluster.find("rayclusters", kindling.runs), "nothing of Ray is left"
    run.delete()


def shards(store: Store, uri: str) -> dict[str, str]:
    """What S3 calls the digests of a dataset's tokens."""
    bucket, _, folder = uri.removeprefix("s3://").partition("/")
    listed = store.client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/")["Contents"]
    return {name: each["ETag"] for each in listed if (name := each["Key"].removeprefix(folder)).endswith(".bin")}
