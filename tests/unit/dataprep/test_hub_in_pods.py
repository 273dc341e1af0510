"""A build as a pod runs it, of what lies on the Hub: with the command, environment and files that the operator gives
it, and nothing else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub
from tokenizers import Tokenizer, models, pre_tokenizers

from kindling_api.documents import parse
from kindling_api.resolve import Waiting, resolve
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import DatasetResult
from kindling_operator.render import render
from kindling_operator.settings import HuggingFace, Images, Settings
from kindling_storage import open_store
from kindling_storage.commit import read_manifest

Object = dict[str, Any]

SECRETS = {"store": {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}, "hub": {"token": "hf_secret"}}


@pytest.fixture
def private(hub: Hub) -> Hub:
    """A Hub with texts and a tokenizer that only a token opens."""
    tokenizer = Tokenizer(models.BPE({c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|end|>"])
    hub.model("me/tiny", {"tokenizer.json": tokenizer.to_str().encode()}).token = "hf_secret"
    lines = [json.dumps({"text": f"Text {number} is told.\n" * 9}) for number in range(20)]
    hub.data("me/texts", {"data/a.jsonl": "\n".join(lines).encode()}).token = "hf_secret"
    return hub


def asked_for(hub: Hub, bucket: Any, prefix: str, **spec: Any) -> Object:
    """A document that names the commits of now."""
    texts, tokenizer = (repository.branches["main"] for repository in (hub.data("me/texts"), hub.model("me/tiny")))
    whole = {
        "sources": [{"uri": f"hf://datasets/me/texts@{texts}/data/*.jsonl"}],
        "tokenizer": {"from": {"uri": f"hf://me/tiny@{tokenizer}", "endOfDocument": "<|end|>"}},
        "filters": [],
        "validation": {"fraction": 0},
        "storage": {"uri": f"{bucket.uri}/{prefix}", "endpoint": bucket.endpoint, "credentialsSecret": "store"},
        **spec,
    }
    metadata = {"name": "web", "namespace": "team", "uid": "1"}
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": "DatasetBuild", "metadata": metadata, "spec": whole}


def run_pod(resource: Object, hub: str, folder: Path, attempt: int = 1) -> tuple[int, Progress]:
    """Exit code and last word of the pod's program; its file system is in `folder`."""
    storage = parse(resource).spec.storage
    assert storage is not None
    images = Images(trainer="t", dataprep="d", serve="s")
    settings = Settings(images=images, storage=storage, hugging_face=HuggingFace(endpoint=hub))
    run_file = resolve(parse(resource), storage=storage, finished={}, attempt=attempt)
    assert not isinstance(run_file, Waiting)
    run_map, job = render(settings, resource, run_file).create
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    places = {mount["name"]: folder / mount["mountPath"].lstrip("/") for mount in container["volumeMounts"]}
    for volume in pod["volumes"]:
        places[volume["name"]].mkdir(parents=True)
        for source in volume.get("projected", {}).get("sources", ()):
            secret = SECRETS[source["secret"]["name"]]
            for item in source["secret"]["items"]:
                if item["key"] in secret:
                    (places[volume["name"]] / item["path"]).write_text(secret[item["key"]])
    (places["run"] / "run.json").write_text(run_map["data"]["run.json"])
    (folder / "dev").mkdir(exist_ok=True)
    environment = {each["name"]: _inside(folder, each["value"]) for each in container["env"]}
    environment |= {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    command = [_inside(folder, word).replace("8090", str(_free_port())) for word in container["command"]]
    done = subprocess.run([sys.executable, *command[1:]], env=environment, cwd="/", capture_output=True, timeout=300)
    return done.returncode, Progress.model_validate_json((folder / "dev" / "termination-log").read_bytes())


@pytest.mark.slow
def test_a_later_attempt_reads_the_same_commit_whatever_has_moved(
    private: Hub, new_bucket: Callable, tmp_path: Path
) -> None:
    bucket = new_bucket("moto")
    token = {"huggingFace": {"tokenSecret": "hub"}}
    document = asked_for(private, bucket, "first", **token)
    code, word = run_pod(document, private.address, tmp_path / "first")
    assert code == 0 and isinstance(word.result, DatasetResult), word
    manifest = read_manifest(open_store(word.result.uri, endpoint=bucket.endpoint), DatasetManifest)
    assert manifest is not None and manifest.documents.kept == 20
    assert manifest.spec["sources"] == [document["spec"]["sources"][0] | {"textField": "text", "weight": 1.0}]

    private.data("me/texts", {"data/a.jsonl": b'{"text": "Another."}\n'})
    private.model("me/tiny", {"tokenizer.json": b"{}"})
    document["spec"]["storage"]["uri"] = f"{bucket.uri}/second"
    code, again = run_pod(document, private.address, tmp_path / "second", attempt=2)
    assert code == 0 and isinstance(again.result, DatasetResult), again
    assert again.result.digest == word.result.digest
    assert not any("/revision/" in line for line in private.asked), "nobody asks what a branch means"
    assert (tmp_path / "second" / "tmp" / ".cache" / "huggingface" / "hub").is_dir()


@pytest.mark.slow
def test_without_a_token_the_field_for_it_is_named(private: Hub, new_bucket: Callable, tmp_path: Path) -> None:
    code, word = run_pod(asked_for(private, new_bucket("moto"), "runs"), private.address, tmp_path)
    assert code == 2 and word.failure is not None
    assert "set HF_TOKEN (in a cluster: spec.huggingFace.tokenSecret) to a token" in word.failure.message


def _inside(folder: Path, text: str) -> str:
    return str(folder / text.lstrip("/")) if text.startswith(("/etc", "/tmp", "/dev")) else text


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
