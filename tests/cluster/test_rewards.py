"""Who may write documents, and nothing else, gets no process, no key and no file of a pod by what they name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kubenode.certificates import kubeconfig
from kubenode.client import Object, wait_until
from kubenode.images import with_files
from kubenode.installation import Installation
from kubenode.node import all_nodes
from kubenode.store import Store
from runs import Run, dataset

CALLABLES = (Path(__file__).parents[1] / "contract" / "callables.txt").read_text().split()
FILES = ["/proc/self/environ", "file:///proc/1/environ", "/var/run/secrets", "/etc/kindling/run.json"]

MODULE = """
import os, socket
from os import system

def environments():
    yield str(dict(os.environ))
    for number in range(1, 400):
        try:
            with open(f"/proc/{number}/environ") as file:
                yield file.read()
        except OSError:
            pass

def files():
    for folder in ("/etc/kindling", "/var/run/secrets", "/run/secrets", "/tmp"):
        try:
            yield from os.listdir(folder)
        except OSError:
            pass

def sockets():
    try:
        socket.socket()
        yield "a socket"
    except OSError:
        pass

def score(prompts, answers, records):
    got = [text for text in environments() if "AWS_" in text] + [*files(), *sockets()]
    if got:
        raise ValueError(f"it got at {len(got)} things, such as {got[0][:20]}")
    return [float(len(answer)) for answer in answers]
"""


@pytest.fixture(scope="module")
def author(kindling: Installation) -> Iterator[str]:
    """A ServiceAccount with rights on the three kinds alone; the installation allows `team.rewards`, and no more."""
    name = {"name": "author"}
    kinds = ["datasetbuilds", "pretrainruns", "alignmentruns"]
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
    rules = [{"apiGroups": ["kindling.dev"], "resources": kinds, "verbs": verbs}]
    rights = "rbac.authorization.k8s.io"
    objects: list[Object] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name},
        {"apiVersion": f"{rights}/v1", "kind": "Role", "metadata": name, "rules": rules},
        {
            "apiVersion": f"{rights}/v1",
            "kind": "RoleBinding",
            "metadata": name,
            "roleRef": {"apiGroup": rights, "kind": "Role", **name},
            "subjects": [{"kind": "ServiceAccount", **name, "namespace": kindling.runs}],
        },
    ]
    kindling.cluster.apply(*objects, namespace=kindling.runs)
    account = f"system:serviceaccount:{kindling.runs}:author"
    asked = ("auth", "can-i", "create", "alignmentruns", f"--as={account}", "-n", kindling.runs)
    wait_until("the rights are known", lambda: kindling.cluster.run_kubectl(*asked).returncode == 0, 30)
    yield account
    for each in objects[::-1]:
        kindling.cluster.delete(each["kind"], "author", kindling.runs)


def test_no_function_and_no_file_but_the_installations_is_let_in(kindling: Installation, author: str) -> None:
    cluster, namespace = kindling.cluster, kindling.runs
    for what in (("create", "pods"), ("get", "secrets"), ("create", "pods/exec"), ("create", "configmaps")):
        asked = cluster.kubectl("auth", "can-i", *what, f"--as={author}", "-n", namespace, check=False)
        assert asked.strip() == "no"
    paths = [*CALLABLES, "team.rewards.__main__:main", "team.rewardsx:score"]
    documents = [rewarded(f"code-{number}", path) for number, path in enumerate(paths)]
    documents += [dataset(f"file-{number}", sources=[{"uri": uri}]) for number, uri in enumerate(FILES)]
    create(kindling, author, documents)
    said = wait_until("all are refused", lambda: verdicts(kindling, names(documents)), 120)
    for (name, verdict), named in zip(said.items(), [*paths, *FILES], strict=True):
        assert (verdict["status"], verdict["reason"]) == ("False", "InvalidSpec"), name
        assert f"found {named}; allowed: " in verdict["message"], verdict["message"]
    pods = cluster.find("pods", namespace, "kindling.dev/name")
    assert not {pod["metadata"]["labels"]["kindling.dev/name"] for pod in pods} & {*said}
    print(f"{len(said)} documents refused, as: {said['code-0']['message']}")
    cluster.kubectl("delete", "alignmentruns,datasetbuilds", *names(documents), "-n", namespace, "--ignore-not-found")


def test_an_allowed_module_rewards_and_gets_at_no_key(
    kindling: Installation, minio: Store, author: str, tmp_path: Path
) -> None:
    if kindling.cluster.kubeconfig != kubeconfig():
        pytest.skip("the image with the module is in the registry of the cluster on this machine")
    folder = "/opt/kindling/team"
    image = with_files("rewards", "trainer", {f"{folder}/rewards.py": MODULE})
    for each in all_nodes():
        each.pull(image)
    base = upload_base(minio, kindling.bucket, tmp_path)
    text = "".join(json.dumps({"prompt": f"say {number}"}) + "\n" for number in range(40))
    minio.client.put_object(Bucket=kindling.bucket, Key="inputs/asked.jsonl", Body=text.encode())
    data = [{"uri": f"s3://{kindling.bucket}/inputs/asked.jsonl"}]
    good = rewarded("allowed", "team.rewards:score", base={"uri": base}, data=data, image=image)
    handed_on = rewarded("handed-on", "team.rewards:system", base={"uri": base}, data=data, image=image)
    create(kindling, author, [good, handed_on])
    runs = [Run(kindling.cluster, "AlignmentRun", name, kindling.runs) for name in ("allowed", "handed-on")]
    runs[0].finish()
    log = kindling.cluster.logs(runs[0].pods()[0]["metadata"]["name"], kindling.runs)
    told = next(line for line in log.splitlines() if "kept from: " in line)
    print(told)
    assert json.loads(told)["message"].endswith("kept from: files, network")
    runs[1].wait("fails", lambda _: runs[1].condition("Failed").get("status") == "True" or None, 240)
    failed = runs[1].condition("Failed")
    assert "which is defined in posix" in failed["message"], failed["message"]
    assert failed["reason"] == "UserError"
    for run in runs:
        run.delete()


def rewarded(name: str, path: str, **spec: object) -> Object:
    """An AlignmentRun of two rounds with a function as its reward."""
    rollout = {"prompts": 2, "maxNewTokens": 4}
    default = {
        "base": {"uri": "s3://nowhere/model"},
        "method": {"grpo": {"groupSize": 2, "rollout": rollout, "rewards": [{"function": {"importPath": path}}]}},
        "data": [{"uri": "s3://nowhere/prompts.jsonl"}],
        "training": {"steps": 2, "compile": "never", "precision": "fp32"},
        "resources": {"nodes": 1, "cpu": "500m", "memory": "2Gi"},
    }
    metadata = {"name": name}
    return {
        "apiVersion": "kindling.dev/v1alpha1", "kind": "AlignmentRun", "metadata": metadata, "spec": {**default, **spec}
    }  # fmt: skip


def create(kindling: Installation, author: str, documents: list[Object]) -> None:
    """As the author, with his rights alone."""
    text = yaml.safe_dump_all(documents)
    kindling.cluster.kubectl("create", f"--as={author}", "-n", kindling.runs, "-f", "-", standard_input=text)


def names(documents: list[Object]) -> list[str]:
    return [document["metadata"]["name"] for document in documents]


def verdicts(kindling: Installation, wanted: list[str]) -> dict[str, Object] | None:
    """The conditions Accepted of these documents, by name and in their order; None: one has none yet."""
    there = kindling.cluster.find("alignmentruns,datasetbuilds", kindling.runs)
    found = {
        each["metadata"]["name"]: condition
        for each in there
        for condition in each.get("status", {}).get("conditions", ())
        if condition["type"] == "Accepted"
    }
    return {name: found[name] for name in wanted} if found.keys() >= {*wanted} else None


def upload_base(minio: Store, bucket: str, folder: Path) -> str:
    """A Hugging Face folder of a tiny model that reads bytes, with random weights; its URI."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from kindling_api.v1alpha1.model import ModelShape
    from kindling_storage import open_store
    from kindling_trainer.checkpoint.huggingface import export
    from kindling_trainer.models import build_model
    from kindling_trainer.models.initialize import initialize

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    sizes = {"layers": 2, "heads": 4, "kv_heads": 2, "width": 32, "ffn_width": 48, "context": 96}
    model = build_model(ModelShape.model_validate({"architecture": "llama", **sizes}), tokenizer.get_vocab_size())
    initialize(model, 1)
    weights = ((name, parameter.detach()) for name, parameter in model.named_parameters())
    file = tokenizer.to_str().encode()
    vocabulary = {"vocab_size": tokenizer.get_vocab_size(), "tokenizer": file, "end_of_document": None}
    export(open_store(folder.as_uri()), weights, model.shape, scored=False, **vocabulary)
    for path in folder.iterdir():
        minio.client.put_object(Bucket=bucket, Key=f"inputs/base/{path.name}", Body=path.read_bytes())
    return f"s3://{bucket}/inputs/base"
