"""What counts of an alignment's data in its key: what the files hold, and no folder of a machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from kindling_api.documents import parse
from kindling_api.resolve import resolve
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_trainer.align.data.sources import with_contents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Data to learn from and data that is held out."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("a", "b", "held-out"):
        (folder / f"{name}.jsonl").write_text(f'{{"prompt": "{name}"}}\n')
    return folder


def key(folder: Path, uri: str, *, held_out: str | None = "held-out.jsonl") -> str:
    spec: dict[str, Any] = {
        "base": {"uri": "s3://models/1"},
        "method": {"sft": {}},
        "data": [{"uri": f"{folder}/{uri}"}],
    }
    if held_out:
        spec["validation"] = {"data": [{"uri": f"{folder}/{held_out}"}]}
    header = {"apiVersion": "kindling.dev/v1alpha1", "kind": "AlignmentRun", "metadata": {"name": "x"}}
    run = resolve(parse({**header, "spec": spec}), storage=StorageSpec(uri=f"file://{folder}/store"), finished={})
    assert isinstance(run, AlignmentRunFile)
    return with_contents(run.model_copy(update={"base": run.base.model_copy(update={"uri": f"file://{folder}"})})).key


@pytest.mark.parametrize("uri", ["a.jsonl", "*.jsonl", ".", "../here/a.jsonl"])
def test_data_that_is_copied_to_another_folder_has_the_same_key(uri: str, folder: Path, tmp_path: Path) -> None:
    there = shutil.copytree(folder, tmp_path / "deep/there")
    assert key(there, uri.replace("here", "there")) == key(folder, uri)


@pytest.mark.parametrize("changed", ["a.jsonl", "held-out.jsonl"])
def test_data_that_is_edited_has_another_key(changed: str, folder: Path) -> None:
    before = key(folder, "[ab].jsonl")
    (folder / changed).write_text('{"prompt": "c"}\n')
    assert key(folder, "[ab].jsonl") != before


def test_other_files_are_other_work(folder: Path) -> None:
    keys = {key(folder, uri) for uri in ("a.jsonl", "b.jsonl", "[ab].jsonl", "*.jsonl")}
    assert len(keys | {key(folder, "a.jsonl", held_out=None), key(folder, "a.jsonl", held_out="b.jsonl")}) == 6
