"""`kindling list` and `kindling prune` over a store of a real dataset and two models, and damage as a plan tells it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kindling_api.base import digest_of
from kindling_api.errors import IntegrityError, SpecError
from kindling_api.v1alpha1.products import ModelManifest
from kindling_cli.commands.list import list_products, prune
from kindling_cli.commands.plan import plan_files
from kindling_cli.commands.run import run_files
from kindling_storage import open_store
from kindling_storage.names import Published, publish

SHAPE = {"architecture": "llama", "layers": 1, "heads": 2, "kv_heads": 2, "width": 16, "ffn_width": 32, "context": 32}
OLD, NEW = "models/" + "a" * 16, "models/" + "b" * 16


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with the dataset `words` and two models of it, of which the name `words` leads to the second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "words.txt").write_text("Once upon a time there was a text. " * 20)
    (tmp_path / "words.yaml").write_text(
        "apiVersion: kindling.dev/v1alpha1\nkind: DatasetBuild\nmetadata: {name: words}\n"
        "spec: {sources: [{uri: '*.txt'}], tokenizer: {byte: {}}}\n"
    )
    assert build() == 0
    whole = open_store(f"file://{tmp_path}/store")
    product = json.loads(whole.get("names/DatasetBuild/default/words.json"))
    for folder in (OLD, NEW):
        place = whole.child(folder)
        info = place.put("model/model.safetensors", folder.encode())
        files = [{"path": info.path, "size": info.size, "digest": info.digest}]
        manifest = ModelManifest.model_validate(
            dict(key=digest_of(folder.encode()), files=files, spec={}, dataset=product["digest"], shape=SHAPE)
            | dict(dataset_uri=product["uri"], tokenizer=product["digest"], vocab_size=257, steps=1, tokens=1)
        )
        place.put("manifest.json", manifest.to_bytes())
    publish(
        whole, "PretrainRun", "default", "words", Published(uri=place.uri, digest=manifest.digest, key=manifest.key)
    )
    return tmp_path / "store"


def build() -> int:
    return run_files([Path("words.yaml")], store="store", only=(), overrides=(), prompt="", verbose=False)


@pytest.fixture
def said(store: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command prints about the store."""

    def said(command: Callable[..., None], **options: object) -> str:
        capsys.readouterr()
        command(store="store", **{"as_json": False, **options})
        return capsys.readouterr().out

    return said


def planned(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    plan_files([Path("words.yaml")], store="store", overrides=(), flops_per_second=1.0, as_json=True)
    (plan,) = json.loads(capsys.readouterr().out)
    return plan  # type: ignore[no-any-return]


def test_a_list_says_what_there_is_who_made_it_and_who_uses_it(said: Callable[..., str]) -> None:
    lines = said(list_products).splitlines()
    assert lines[0].split() == ["product", "size", "age", "key", "used", "by"]
    assert re.fullmatch(
        r"DatasetBuild/words +[0-9.]+ KiB +\d+ s +[0-9a-f]{16}  PretrainRun/words, models/a{16}", lines[1]
    )
    assert sorted(line.split()[0] for line in lines[2:4]) == ["PretrainRun/words", OLD]
    assert lines[4].startswith("3 products, ") and "Nothing uses 1 of them" in lines[4]
    dataset, old, new = json.loads(said(list_products, as_json=True))
    assert (dataset["madeBy"], dataset["usedBy"], dataset["state"]) == ("DatasetBuild/words", [OLD, NEW], "finished")
    assert (old["names"], new["names"], new["usedBy"]) == ([], ["PretrainRun/words"], [])


def test_a_prune_takes_what_was_replaced_and_says_what_stays_and_why(said: Callable[..., str], store: Path) -> None:
    for dry_run in (True, False):
        words = said(prune, unused=True, older_than="0s", dry_run=dry_run)
        assert words.splitlines()[1].startswith(OLD) and "in 1 product of store." in words
        assert "2 stay: its name leads to it" in words
        assert (store / OLD).exists() is dry_run
    assert json.loads(said(prune, unused=True, older_than="0s", dry_run=False, as_json=True))["removed"] == []


def test_a_young_product_and_a_finished_one_stay_unless_asked_for(said: Callable[..., str]) -> None:
    assert "1 stays: written to within 7d" in said(prune, unused=True, older_than="7d", dry_run=True)
    assert "1 stays: finished; --unused takes it, too" in said(prune, unused=False, older_than="0s", dry_run=True)
    with pytest.raises(SpecError, match="--older-than: found 'a week'; allowed: a length of time, as in 7d"):
        prune(store="store", unused=True, older_than="a week", dry_run=True, as_json=False)


@pytest.mark.parametrize("damage", ["a lost shard", "a torn manifest"])
def test_a_damaged_dataset_is_told_by_plan_and_healed_by_run(
    store: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    before = planned(capsys)["finished"]
    (folder,) = (store / "datasets").iterdir()
    if damage == "a lost shard":
        (folder / "train-00000.bin").unlink()
    else:
        os.truncate(folder / "manifest.json", 100)
    plan = planned(capsys)
    assert "finished" not in plan
    where = "train-00000.bin is missing" if damage == "a lost shard" else "manifest.json is torn"
    assert any(
        remark.startswith("damaged, and made again: store/datasets/") and where in remark for remark in plan["remarks"]
    )
    assert build() == 0
    assert planned(capsys)["finished"] == before


def test_a_damaged_product_of_another_document_is_refused_before_it_is_read(store: Path) -> None:
    (folder,) = (store / "datasets").iterdir()
    (folder / "train-00000.bin").unlink()
    Path("model.yaml").write_text(
        "apiVersion: kindling.dev/v1alpha1\nkind: PretrainRun\nmetadata: {name: m}\nspec:\n  dataset: {name: words}\n"
        "  model: {architecture: llama, layers: 1, heads: 2, width: 16, context: 16}\n  training: {steps: 1}\n"
    )
    with pytest.raises(
        IntegrityError, match=r"train-00000.bin is missing; allowed: a whole product. To fix it: run the"
    ):
        plan_files([Path("model.yaml")], store="store", overrides=(), flops_per_second=1.0, as_json=True)
