"""From text to an answer through the Service of an aligned model, applied as one file."""

from __future__ import annotations

import json

import yaml

from kubenode.client import Object
from kubenode.installation import Installation
from kubenode.store import Store
from runs import Run, dataset, pretraining

ONE_POD: Object = {"parallelism": {}, "resources": {"nodes": 1, "cpu": "500m", "memory": "2Gi"}}
FAST: Object = {"batch": {"tokens": "1Ki"}, "compile": "never", "precision": "fp32"}

ASK = """
import json, sys, urllib.request
body = {"model": sys.argv[2], "messages": [{"role": "user", "content": "What is 2 and 3?"}], "max_tokens": 8}
headers = {"Content-Type": "application/json"}
request = urllib.request.Request(sys.argv[1] + "/v1/chat/completions", json.dumps(body).encode(), headers)
print(urllib.request.urlopen(request, timeout=30).read().decode())
"""


def test_text_becomes_a_model_that_answers_through_its_service(kindling: Installation, minio: Store) -> None:
    cluster, namespace = kindling.cluster, kindling.runs
    documents = [
        aligned("talk-dpo", "talk-sft", "AlignmentRun", {"dpo": {}}, upload(minio, kindling, "pairs", pairs())),
        aligned("talk-sft", "talk", "PretrainRun", {"sft": {}}, upload(minio, kindling, "dialogues", dialogues())),
        pretraining("talk", "talk", training={"steps": 60, **FAST}, **ONE_POD),
        dataset("talk"),
    ]
    documents[0]["spec"]["serve"] = {"resources": {"cpu": "500m", "memory": "2Gi"}}
    cluster.apply(yaml.safe_dump_all(documents), namespace=namespace)
    runs = [Run(cluster, each["kind"], each["metadata"]["name"], namespace) for each in documents]
    end = runs[0].finish(300)
    base = runs[1].status()["result"]
    assert end["result"]["model"] != base["model"]
    runs[0].wait("is served", lambda _: runs[0].condition("Serving").get("status") == "True" or None, 120)
    asked = ("deployment/talk-dpo-serve", "--", "python", "-c", ASK, runs[0].status()["result"]["endpoint"], "talk-dpo")
    answer = json.loads(cluster.kubectl("exec", "-n", namespace, *asked))
    print(answer)
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] > 0
    for run in runs:
        run.delete()


def aligned(name: str, base: str, kind: str, method: Object, data: Object) -> Object:
    """An AlignmentRun of a few steps."""
    training = {"steps": 12, **FAST}
    spec = {"base": {"name": base, "kind": kind}, "method": method, "data": [data], "training": training, **ONE_POD}
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": "AlignmentRun", "metadata": {"name": name}, "spec": spec}


def upload(minio: Store, kindling: Installation, name: str, records: list[Object]) -> Object:
    """The entry of `spec.data` for records, which are in the store from now on."""
    key = f"inputs/{name}.jsonl"
    minio.client.put_object(
        Bucket=kindling.bucket, Key=key, Body="".join(json.dumps(each) + "\n" for each in records).encode()
    )
    return {"uri": f"s3://{kindling.bucket}/{key}"}


def dialogues() -> list[Object]:
    """Sums, asked and answered."""
    return [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer, _ in sums()
    ]


def pairs() -> list[Object]:
    """A right and a wrong answer to each."""
    return [{"prompt": question, "chosen": right, "rejected": wrong} for question, right, wrong in sums()]


def sums() -> list[tuple[str, str, str]]:
    """Questions, each with a right and a wrong answer."""
    return [(f"What is {a} and {b}?", f"It is {a + b}.", f"It is {a + b + 1}!") for a in range(9) for b in range(9)]
