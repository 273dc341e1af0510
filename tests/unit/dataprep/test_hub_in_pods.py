"""A build as a pod runs it, of what lies on the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub
from pod_program import applied, run_pod
from tokenizers import Tokenizer, models, pre_tokenizers

from kindling_api.v1alpha1.products import DatasetManifest
from kindling_api.v1alpha1.status import DatasetResult
from kindling_storage import open_store
from kindling_storage.commit import read_manifest

Object = dict[str, Any]


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
        **spec,
    }
    return applied("DatasetBuild", "web", bucket, prefix, whole)


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
