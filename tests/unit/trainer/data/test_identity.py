"""The same work has one key, whether a document names what it reads or says where that lies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pod_program import applied, run_pod

from kindling_api.base import digest_of, key_of
from kindling_api.documents import parse
from kindling_api.references import Reference
from kindling_api.resolve import Finished, Waiting, resolve
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.products import MANIFEST, Manifest, ModelManifest, model_folder
from kindling_api.v1alpha1.runfile import AlignmentRunFile, DatasetBuildFile, PretrainRunFile
from kindling_api.v1alpha1.status import ModelResult
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_cli.commands.plan import plan_files
from kindling_storage import open_store
from kindling_storage.commit import commit
from kindling_storage.origin import record_origin
from kindling_trainer.data.identity import with_digests

Object = dict[str, Any]
Run = PretrainRunFile | AlignmentRunFile

SHAPE = {"architecture": "llama", "layers": 1, "heads": 2, "width": 16, "context": 16}
PRETRAINING: Object = {"model": SHAPE, "training": {"steps": 2, "batch": {"tokens": 32}}}
TALKS: Object = {"data": [{"uri": "s3://talks/a.jsonl"}]}
REWARDED: Object = {"method": {"grpo": {"rewards": [{"exactAnswer": {}}, {"model": "model"}]}}}


def model(seed: str, **facts: Any) -> ModelManifest:
    digest = digest_of(seed.encode())
    shape = ModelShape.model_validate({**SHAPE, "ffnWidth": 32, "kvHeads": 2}, strict=False)
    given = {"key": key_of(seed), "files": [], "spec": {}, "dataset": digest, "dataset_uri": "", "tokenizer": digest}
    return ModelManifest(**{**given, "shape": shape, "vocab_size": 8, "steps": 2, "tokens": 64, **facts})


@pytest.fixture
def products(tmp_path: Path, dataset: Callable[..., str]) -> dict[str, Finished]:
    """A dataset and two models, finished, by the names of their documents."""
    uris = {"dataset": dataset()}
    for name in ("model", "judge"):
        uris[name] = (tmp_path / name).as_uri()
        commit(open_store(uris[name]), model(name))
    return {name: Finished(uri, digest_of(open_store(uri).get(MANIFEST))) for name, uri in uris.items()}


def resolved(kind: str, spec: Object, products: dict[str, Finished], output: str) -> Run:
    finished = {}
    for name, product in products.items():
        finished[Reference("DatasetBuild" if name == "dataset" else "PretrainRun", "default", name)] = product
    document = {"apiVersion": "kindling.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
    run = resolve(parse(document), storage=StorageSpec(uri=output), finished=finished)
    assert not isinstance(run, Waiting | DatasetBuildFile)
    return run


def filled(spec: Any, reference: Callable[[str], Object]) -> Any:
    """The spec, with a reference in each place where a product's name stands."""
    if isinstance(spec, dict):
        return {key: filled(value, reference) for key, value in spec.items()}
    if isinstance(spec, list):
        return [filled(item, reference) for item in spec]
    return reference(spec) if spec in ("dataset", "model", "judge") else spec


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("PretrainRun", {"dataset": "dataset", **PRETRAINING}),
        ("PretrainRun", {"dataset": "dataset", "initialize": {"from": "model"}, **PRETRAINING}),
        ("AlignmentRun", {"base": "model", "method": {"sft": {}}, **TALKS}),
        ("AlignmentRun", {"base": "model", **REWARDED, "evaluation": {"prompts": ["a"], "judge": "judge"}, **TALKS}),
    ],
)
def test_a_name_and_the_uri_of_what_it_stands_for_are_one_key(
    kind: str, spec: Object, products: dict[str, Finished], tmp_path: Path
) -> None:
    store = (tmp_path / "store").as_uri()
    named = resolved(kind, filled(spec, lambda name: {"name": name}), products, store)
    placed = resolved(kind, filled(spec, lambda name: {"uri": products[name].uri}), {}, store)
    assert placed.key != named.key, "whoever has not read a product does not know its digest"
    assert with_digests(placed).key == named.key
    assert with_digests(named) == named

    changed = next(name for name in ("model", "dataset") if f"'{name}'" in str(list(spec.values())))
    text = json.loads(open_store(products[changed].uri).get(MANIFEST)) | {"key": key_of("another")}
    open_store(products[changed].uri).put(MANIFEST, json.dumps(text).encode())
    assert with_digests(placed).key != named.key, "another product at that place is other work"


def test_a_pretraining_that_was_begun_under_its_uris_keeps_their_key(
    products: dict[str, Finished], tmp_path: Path
) -> None:
    spec = {"dataset": {"uri": products["dataset"].uri}, **PRETRAINING}
    placed = resolved("PretrainRun", spec, {}, tmp_path.as_uri())
    assert with_digests(placed).key != placed.key
    record_origin(open_store(tmp_path.as_uri()).child(model_folder(placed.key)), placed)
    assert with_digests(placed) == placed


def test_what_was_trained_by_name_is_found_by_uri_in_a_pod_and_on_a_laptop(
    new_bucket: Callable,
    dataset: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket = new_bucket("moto")
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    uri, local = f"{bucket.uri}/datasets/1", open_store(dataset())
    for file in local.list():
        open_store(uri).put(file.path, local.get(file.path))
    product = Finished(uri, digest_of(local.get(MANIFEST)))
    by_uri = applied("PretrainRun", "second", bucket, "runs", {"dataset": {"uri": uri}, **PRETRAINING})
    output = by_uri["spec"]["storage"]["uri"]
    named = resolved("PretrainRun", {"dataset": {"name": "dataset"}, **PRETRAINING}, {"dataset": product}, output)
    finished: Manifest = model("made by name", key=named.key, dataset=product.digest, dataset_uri=uri)
    digest = commit(open_store(output).child(model_folder(named.key)), finished)

    code, word = run_pod(by_uri, "http://127.0.0.1:9", tmp_path / "pod")
    assert code == 0 and isinstance(word.result, ModelResult), word
    assert (word.result.digest, word.result.uri) == (digest, f"{output}/{model_folder(named.key)}")

    del by_uri["spec"]["storage"]["credentialsSecret"]
    (tmp_path / "run.yaml").write_text(json.dumps(by_uri))
    plan_files((tmp_path / "run.yaml",), store=output, overrides=(), flops_per_second=1e9, as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["finished"] == digest
