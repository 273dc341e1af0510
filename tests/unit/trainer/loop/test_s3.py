"""A run whose dataset and products are in S3."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kindling_api.v1alpha1.products import DatasetManifest, ModelManifest
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_storage import open_store
from kindling_storage.commit import read_manifest
from kindling_storage.s3.lease import SECONDS

RunFactory = Callable[..., Path]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_run_in_s3_that_is_killed_goes_on_and_gives_the_model_of_one_in_a_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_file: RunFactory,
    runs: Any,
    dataset: Callable[..., str],
    new_bucket: Callable[[str], Any],
) -> None:
    bucket = new_bucket("moto")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    local = dataset()
    storage = StorageSpec(uri=f"{bucket.uri}/runs", endpoint=bucket.endpoint)
    remote = open_store(storage).child("dataset")
    for info in open_store(local).list():
        remote.put(info.path, open_store(local).get(info.path))

    recipe = {"training": {"steps": 40, "batch": {"tokens": 128}}}
    here = run_file(name="here", dataset=local, **recipe)
    there = run_file(name="there", store=storage, dataset=remote.uri, **recipe)
    runs.finish(here)
    assert runs.kill_after(there, 12, signal.SIGKILL) == -signal.SIGKILL
    said = runs.finish(there)
    assert f"waiting up to {SECONDS:.0f} s" in said and "continues from checkpoint step-" in said
    assert runs.losses(there) == runs.losses(here)
    mine, theirs = (read_manifest(runs.store(run), ModelManifest) for run in (there, here))
    assert mine is not None and theirs is not None and mine.files == theirs.files
    shards = [entry for entry in read_manifest(remote, DatasetManifest).files if entry.path.endswith((".bin", ".idx"))]
    cache = tmp_path / "scratch" / "kindling-cache"
    cached = {f"sha256:{path.name}" for path in cache.iterdir() if path.suffix != ".lock"}
    assert cached == {entry.digest for entry in shards}, "each shard was downloaded once, under its digest"


@pytest.mark.slow
def test_the_log_of_a_pod_is_json_lines_and_tells_the_course_of_the_run(
    run_file: RunFactory, runs: Any, new_bucket: Callable[[str], Any]
) -> None:
    bucket = new_bucket("moto")
    run = run_file(store=StorageSpec(uri=f"{bucket.uri}/runs", endpoint=bucket.endpoint), training={"steps": 10})
    process = runs.start(run, "--log=json")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    lines = [json.loads(line) for line in errors.splitlines()]
    assert {(line["run"], line["attempt"]) for line in lines} == {("PretrainRun/default/tiny", 1)}
    assert not [line for line in lines if not line["logger"].startswith("kindling_")]
    said = "\n".join(line["message"] for line in lines)
    for what in ("node 1 of 1 starts 1 training process", "1 process on cpu", "saving, step 5", "saved step 5 at s3://",
                 "evaluated after step 10", "exporting, step 10", "10 steps on 1,280 tokens"):  # fmt: skip
        assert what in said
    assert [line["step"] for line in lines if line["message"].startswith("step ")] == list(range(1, 11))
    assert all(line["loss"] > 0 for line in lines if line["message"].startswith("step "))
