"""The documents of a step, named from a run's manifest, or from what a failed run left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kindling_api.base import canonical_json, key_of
from kindling_api.errors import SpecError
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.products import MANIFEST, DatasetManifest, ModelManifest
from kindling_api.v1alpha1.runfile import DatasetBuildFile
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_cli.commands.inspect_step import show_step
from kindling_dataprep.build import build
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import commit, read_manifest
from kindling_storage.origin import ORIGIN, ProductOrigin, Read
from kindling_trainer.telemetry.metrics import METRICS

TEXTS = {name: f"{name} is a text of its own, which says {name} again and again: {name * 9}. " * 3 for name in "abcdef"}
SPEC = {
    "model": {"context": 16},
    "training": {"steps": 9, "batch": {"tokens": 64}, "seed": 3, "schedule": {"cosine": {}}},
}
SHAPE = ModelShape(architecture="llama", layers=1, heads=2, kv_heads=2, width=16, ffn_width=32, context=16)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[ObjectStore, DatasetManifest]:
    """A dataset of six texts, in the store, in another order than that of the files."""
    folder = tmp_path_factory.mktemp("step")
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text(text)
    spec = DatasetBuildSpec.model_validate(
        {"sources": [{"uri": str(folder / "*.txt")}], "tokenizer": {"byte": {}}, "shards": {"tokensPerShard": 300}},
        strict=False,
    )
    output = StorageSpec(uri=(folder / "store").as_uri())
    result = build(
        DatasetBuildFile(name="six", key=key_of("six"), output=output, spec=spec), Tracker(ProgressWriter(None))
    )
    store = open_store(result.uri)
    manifest = read_manifest(store, DatasetManifest)
    assert manifest is not None and len(manifest.train) > 1
    return store, manifest


@pytest.fixture(params=["finished", "failed"])
def run(request: pytest.FixtureRequest, tmp_path: Path, dataset: tuple[ObjectStore, DatasetManifest]) -> Path:
    """The folder of a run that is finished or has failed."""
    data, manifest = dataset
    store = open_store((tmp_path / "run").as_uri())
    if request.param == "failed":
        origin = ProductOrigin(made_by="PretrainRun/default/x", reads=(Read(uri=data.uri),), spec=SPEC)
        store.put(ORIGIN, canonical_json(origin.document()))
    else:
        finished = ModelManifest(
            key=key_of("x"), files=[], spec=SPEC, dataset=manifest.digest, dataset_uri=data.uri,
            tokenizer=manifest.tokenizer.digest, shape=SHAPE, vocab_size=257, steps=9, tokens=576,
        )  # fmt: skip
        commit(store, finished)
    return tmp_path / "run"


def rows_of(run: Path, step: int, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    show_step(str(run), step, store=str(run), limit=100, as_json=True)
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


@pytest.mark.parametrize("step", [1, 4, 9])
def test_each_passage_is_where_its_document_says(run: Path, step: int, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(run, step, capsys)
    assert sum(row["tokens"] for row in rows) == 4 * 17
    for row in rows:
        text = TEXTS[Path(row["id"].partition("#")[0]).stem]
        assert text[row["offset"] : row["offset"] + row["tokens"]].split() == row["text"].split()
        assert row["source"].endswith("*.txt")


@pytest.mark.parametrize("run", ["failed"], indirect=True)
def test_a_step_after_what_is_left_out_reads_what_a_later_one_would_have(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later, store = rows_of(run, 8, capsys), open_store(run.as_uri())
    origin = json.loads(store.get(ORIGIN))
    origin["spec"]["training"]["skip"] = [{"first": 12, "count": 8}]
    store.put(ORIGIN, canonical_json(origin))
    assert rows_of(run, 6, capsys) == later, "two steps' windows are left out before it"


def test_what_a_step_left_out_is_named_before_what_it_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, later, store = rows_of(run, 3, capsys), rows_of(run, 4, capsys), open_store(run.as_uri())
    windows = [{"first": 8, "count": 4}]
    if store.exists(MANIFEST):
        manifest = json.loads(store.get(MANIFEST))
        manifest["skipped"] = [{"step": 3, "windows": windows, "why": "loss nan"}]
        store.put(MANIFEST, canonical_json(manifest))
    else:
        store.put(METRICS, json.dumps({"step": 3, "skipped": windows, "why": "loss nan"}).encode() + b"\n")
    found = rows_of(run, 3, capsys)
    assert found == [{**row, "leftOut": True} for row in whole] + later
    show_step(str(run), 3, store=str(run), limit=2, as_json=False)
    assert "Left out is what step 3 was to read: loss nan." in capsys.readouterr().out


def test_other_steps_and_other_things_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="--step: found 10; allowed: 1 to 9, the steps of the run"):
        show_step(str(run), 10, store=str(run), limit=1, as_json=True)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(SpecError, match="a PretrainRun and its dataset"):
        show_step(str(tmp_path / "nothing"), 1, store=str(run), limit=1, as_json=True)
