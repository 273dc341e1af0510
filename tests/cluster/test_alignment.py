"""From text to an answer through the Service of an aligned model, applied as one file."""

from __future__ import annotations

import json

import yaml

from kubenode.client import Object
from kubenode.installation import Installation
from runs import FAST, ONE_POD, Run, aligned, dataset, dialogues, pretraining, sums, upload

ASK = """
import json, sys, urllib.request
body = {"model": sys.argv[2], "messages": [{"role": "user", "content": "What is 2 and 3?"}], "max_tokens": 8}
headers = {"Content-Type": "application/json"}
request = urllib.request.Request(sys.argv[1] + "/v1/chat/completions", json.dumps(body).encode(), headers)
print(urllib.request.urlopen(request, timeout=30).read().decode())
"""


def test_text_becomes_a_model_that_answers_through_its_service(kindling: Installation) -> None:
    cluster, namespace = kindling.cluster, kindling.runs
    documents = [
        aligned("talk-dpo", "talk-sft", "AlignmentRun", {"dpo": {}}, upload(kindling, "pairs", pairs())),
        aligned("talk-sft", "talk", "PretrainRun", {"sft": {}}, upload(kindling, "dialogues", dialogues())),
        pretraining("talk", "talk", training={"steps": 60, **FAST}, **ONE_POD),
        dataset("talk"),
    ]
    documents[0]["spec"]["serve"] = {"resources": {"cpu": "500m", "memory": "2Gi"}}
    cluster.apply(yaml.safe_dump_all(documents), namespace=namespace)
    runs = [Run(cluster, each["kind"], each["metadata"]["name"], namespace) for each in documents]
    end = runs[0].finish()
    base = runs[1].status()["result"]
    assert end["result"]["model"] != base["model"]
    runs[0].wait("is served", lambda _: runs[0].condition("Serving").get("status") == "True" or None, 120)
    asked = ("service/talk-dpo-serve", "--", "python", "-c", ASK, runs[0].status()["result"]["endpoint"], "talk-dpo")
    answer = json.loads(cluster.kubectl("exec", "-n", namespace, *asked))
    print(answer)
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] > 0
    for run in runs:
        run.delete()


def pairs() -> list[Object]:
    """A right and a wrong answer to each."""
    return [{"prompt": question, "chosen": right, "rejected": wrong} for question, right, wrong in sums()]
