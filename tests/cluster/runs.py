"""The documents that the scenarios apply, and what they ask of the runs that come of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubenode.client import Cluster, Found, Object, wait_until
from kubenode.installation import Installation
from kubenode.store import ENDPOINT, Store

SECRET = "kindling-storage"
"""What the chart calls the Secret of the default storage, in the namespaces that it serves."""


FAST: Object = {"batch": {"tokens": "1Ki"}, "compile": "never", "precision": "fp32"}
ONE_POD: Object = {"parallelism": {}, "resources": {"nodes": 1, "cpu": "500m", "memory": "2Gi"}}


@dataclass(frozen=True)
class Run:
    """A document of ours on the cluster."""

    cluster: Cluster
    kind: str
    name: str
    namespace: str

    def get(self) -> Object:
        """The document as it is now.

        Raises:
            AssertionError: it is not there.
        """
        found = self.cluster.get(self.kind, self.name, self.namespace)
        assert found is not None, f"there is no {self.kind}/{self.name}"
        return found

    def status(self) -> Object:
        """Its status as it is now."""
        status: Object = self.get().get("status", {})
        return status

    def condition(self, type_: str) -> Object:
        """One of its conditions; an empty object where it has none of this type."""
        conditions: list[Object] = self.status().get("conditions", [])
        return next((each for each in conditions if each["type"] == type_), {})

    def wait(self, what: str, ask: Callable[[Object], Found | None], seconds: float) -> Found:
        """The first true answer about its status.

        Raises:
            AssertionError: there is none in time; the message has the document, and its Events.
        """
        return wait_until(f"{self.kind}/{self.name}: {what}", lambda: ask(self.status()), seconds, self.describe)

    def finish(self, seconds: float = 420) -> Object:
        """The status of a run that has succeeded."""
        found = self.cluster.wait_for_condition(self.kind, self.name, "Succeeded", self.namespace, seconds)
        status: Object = found["status"]
        return status

    def describe(self) -> str:
        """All that a user would see."""
        return self.cluster.kubectl("describe", self.kind, self.name, "-n", self.namespace, check=False)

    def pods(self) -> list[Object]:
        """Its pods, of all attempts."""
        return self.cluster.find("pods", self.namespace, f"kindling.dev/kind={self.kind},kindling.dev/name={self.name}")

    def delete(self) -> None:
        """The document and its pods go; what is in the store stays."""
        self.cluster.delete(self.kind, self.name, self.namespace, "--timeout=60s")


def dataset(name: str, **spec: Any) -> Object:
    """A DatasetBuild that takes seconds, of the source code of Python's library."""
    default = {
        "sources": [{"uri": "builtin:python-stdlib"}],
        "deduplicate": {"exact": True},
        "tokenizer": {"train": {"vocabSize": 512}},
        "validation": {"fraction": 0.02},
    }
    return _document("DatasetBuild", name, {**default, **spec})


def pretraining(name: str, source: str | Object, **spec: Any) -> Object:
    """A PretrainRun of a tiny model, with its tensors over two pods; half a minute of training.

    Args:
        source: the dataset, by its name or as `spec.dataset` takes it.
    """
    default = {
        "dataset": {"name": source} if isinstance(source, str) else source,
        "model": {"architecture": "llama", "layers": 2, "heads": 4, "kvHeads": 2, "width": 64, "context": 128},
        "training": {"steps": 300, **FAST},
        "parallelism": {"tensor": 2},
        "resources": {"nodes": 2, "cpu": "500m", "memory": "2Gi"},
        "checkpoint": {"every": 50},
    }
    return _document("PretrainRun", name, {**default, **spec})


def aligned(name: str, base: str, kind: str, method: Object, data: Object) -> Object:
    """An AlignmentRun of a few steps."""
    training = {"steps": 12, **FAST}
    spec = {"base": {"name": base, "kind": kind}, "method": method, "data": [data], "training": training, **ONE_POD}
    return _document("AlignmentRun", name, spec)


def upload(kindling: Installation, name: str, records: list[Object]) -> Object:
    """The entry of `spec.data` for records, which are in the store from now on."""
    key = f"inputs/{name}.jsonl"
    body = "".join(json.dumps(each) + "\n" for each in records).encode()
    kindling.store.client.put_object(Bucket=kindling.bucket, Key=key, Body=body)
    return {"uri": f"s3://{kindling.bucket}/{key}"}


def dialogues() -> list[Object]:
    """Sums, asked and answered."""
    return [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer, _ in sums()
    ]


def sums() -> list[tuple[str, str, str]]:
    """Questions, each with a right and a wrong answer."""
    return [(f"What is {a} and {b}?", f"It is {a + b}.", f"It is {a + b + 1}!") for a in range(9) for b in range(9)]


def storage(bucket: str, folder: str, secret: str = SECRET) -> Object:
    """A `spec.storage` in the cluster's MinIO: what is there already is not taken for a run's own work."""
    return {"uri": f"s3://{bucket}/{folder}", "endpoint": ENDPOINT, "credentialsSecret": secret}


def weights(store: Store, status: Object) -> str:
    """A digest of the weights of a model that is finished, as they lie in the store."""
    bucket, _, folder = status["result"]["model"].removeprefix("s3://").partition("/")
    names = sorted(name for name in store.names(bucket, folder) if name.endswith(".safetensors"))
    assert names, f"no weights in {folder}"
    return hashlib.sha256(b"".join(store.read(bucket, name) for name in names)).hexdigest()


def losses(store: Store, status: Object) -> dict[int, float]:
    """The training loss by step, as metrics.jsonl in the store has it."""
    bucket, _, folder = status["result"]["uri"].removeprefix("s3://").partition("/")
    rows = [json.loads(line) for line in store.read(bucket, f"{folder}/metrics.jsonl").splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def signal_process(run: Run, pod: Object, name: str) -> None:
    """A signal, by its name, to the training processes in a pod, which sees its own alone."""
    program = (
        "import os, pathlib, signal\n"
        "for folder in pathlib.Path('/proc').glob('[0-9]*'):\n"
        "    if (folder / 'comm').read_text().startswith('rank-'):\n"
        f"        os.kill(int(folder.name), signal.{name})\n"
    )
    run.cluster.kubectl("exec", pod["metadata"]["name"], "-n", run.namespace, "--", "python", "-c", program)


def seconds_between(start: str, end: str) -> float:
    """Between two moments of a status."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _document(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
