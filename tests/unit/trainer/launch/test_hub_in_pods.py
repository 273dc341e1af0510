"""A run as its pod trains it, from a model and dialogues of the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, changed, status
from pod_program import applied, run_pod
from random_families import CASES

from kindling_api.v1alpha1.products import ModelManifest
from kindling_api.v1alpha1.status import AlignmentResult
from kindling_storage import open_store
from kindling_storage.commit import read_manifest

Object = dict[str, Any]

TALK = {"messages": [{"role": "user", "content": "t3 t4"}, {"role": "assistant", "content": "t5 t6"}]}
TOKEN = {"huggingFace": {"tokenSecret": "hub"}}


@pytest.fixture
def private(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub with a model and dialogues that only a token opens; it does not speak Xet."""
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    CASES["llama-3.1"].save(tmp_path / "tiny")
    files = {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()}
    hub.model("me/tiny", files).token = "hf_secret"
    hub.data("me/talks", {"train.jsonl": f"{json.dumps(TALK)}\n".encode() * 20}).token = "hf_secret"
    hub.model("me/tuned").token = "hf_secret"
    return hub


def tuning(hub: Hub, bucket: Any, prefix: str, **spec: Any) -> Object:
    """A document that names the commits of now, as `kindling run` and the operator have it."""
    base, talks = (each.branches["main"] for each in (hub.model("me/tiny"), hub.data("me/talks")))
    whole = {
        "base": {"uri": f"hf://me/tiny@{base}"},
        "method": {"sft": {}},
        "data": [{"uri": f"hf://datasets/me/talks@{talks}/train.jsonl"}],
        "training": {"steps": 2, "batch": {"tokens": 128}, "compile": "never", "precision": "fp32"},
        "publish": {"to": "hf://me/tuned"},
        **TOKEN,
        **spec,
    }
    return applied("AlignmentRun", "tuned", bucket, prefix, whole)


@pytest.mark.slow
def test_a_pod_trains_what_the_hub_has_and_puts_the_model_there(
    private: Hub, new_bucket: Callable, tmp_path: Path
) -> None:
    bucket = new_bucket("moto")
    document = tuning(private, bucket, "runs")
    private.faults.append(changed("model.safetensors", lambda content: content[:1000], times=1))
    private.faults.append(status(429, times=1, headers={"Retry-After": "0"}))
    code, word = run_pod(document, private.address, tmp_path / "pod")
    assert code == 0 and isinstance(word.result, AlignmentResult), word
    tuned = private.model("me/tuned").branches["main"]
    assert word.result.published == f"hf://me/tuned@{tuned}"
    manifest = read_manifest(open_store(word.result.uri, endpoint=bucket.endpoint), ModelManifest)
    assert manifest is not None and manifest.base_uri == document["spec"]["base"]["uri"]
    assert not any("/revision/main" in line for line in private.asked if "tuned" not in line), "commits do not move"


def gate(hub: Hub) -> None:
    hub.model("me/tiny").token, hub.model("me/tiny").gated = None, True


LONG = pytest.mark.exhaustive
"""It tries for minutes."""
BAD = {
    "no token": (lambda hub: None, {"huggingFace": None, "publish": None}, "or none", "spec.huggingFace.tokenSecret"),
    "no repository": (lambda hub: None, {"base": {"uri": "hf://me/none"}}, "no model me/none", "correct the name"),
    "gated": (
        gate, {}, "a repository that one must ask for", "accept its terms"
    ),
    "forbidden": (lambda hub: hub.faults.append(status(403)), {}, "HTTP 403", "the token is refused"),
    "a short file": (
        lambda hub: hub.faults.append(changed("model.safetensors", lambda content: content[:1000])), {},
        "model.safetensors: found", "allowed: the file as the Hub lists it",
    ),
    "down": (lambda hub: hub.close(), {}, "found no answer from http://127", "the network"),
    "broken": (lambda hub: hub.faults.append(status(503)), {}, "HTTP 503", "run again later"),
    "too many": (lambda hub: hub.faults.append(status(429)), {}, "HTTP 429", "run again later"),
}  # fmt: skip
"""What the Hub does, what is otherwise in the document, and two parts of the last word."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=LONG if name in ("down", "broken", "too many") else ()) for name in BAD]
)
def test_a_pod_says_what_is_wrong_with_the_hub(case: str, private: Hub, new_bucket: Callable, tmp_path: Path) -> None:
    spoil, spec, found, remedy = BAD[case]
    document = tuning(private, new_bucket("moto"), "runs", **spec)
    spoil(private)
    code, word = run_pod(document, private.address, tmp_path / "pod")
    assert code and word.failure is not None and found in word.failure.message and remedy in word.failure.message
    cache = tmp_path / "pod" / "tmp" / ".cache" / "huggingface" / "hub"
    assert not list(cache.glob("models--*/snapshots/*/*.safetensors")), "nothing half-written counts"
