"""Deleting a product, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kindling_api.base import Kind
from kindling_api.errors import ConflictError
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.runfile import DatasetBuildFile
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_storage import ObjectStore, open_store
from kindling_storage.cleanup import delete_product, main
from kindling_storage.lock import LOCK, lock
from kindling_storage.names import Published, lookup, publish

FOLDER, OTHER = "models/0123456789abcdef", "models/0123456789abcde0"
DIGEST = "sha256:" + "0" * 64


def fill(store: ObjectStore, folder: str = FOLDER) -> None:
    for path in ("manifest.json", "model/config.json", "checkpoints/step-00000005-a1/part-00000.safetensors"):
        store.put(f"{folder}/{path}", b"content")


def name(
    store: ObjectStore, name: str, folder: str = FOLDER, kind: Kind = "PretrainRun", uid: str | None = None
) -> None:
    published = Published(uri=store.child(folder).uri, digest=DIGEST, key=DIGEST, uid=uid)
    publish(store, kind, "default", name, published)


def test_a_product_goes_with_its_name_and_others_stay(store: ObjectStore) -> None:
    for folder, called in ((FOLDER, "mine"), (OTHER, "theirs")):
        fill(store, folder)
        name(store, called, folder)
    for _ in range(2):  # the second time there is nothing left to do
        delete_product(store, FOLDER, "PretrainRun/default/mine")
    assert list(store.list("models/0123456789abcdef/")) == []
    assert lookup(store, "PretrainRun", "default", "mine") is None
    assert store.exists(f"{OTHER}/manifest.json") and lookup(store, "PretrainRun", "default", "theirs") is not None


def test_a_product_of_two_documents_stays_until_both_have_gone(folder_store: ObjectStore) -> None:
    fill(folder_store)
    name(folder_store, "one")
    name(folder_store, "two", kind="AlignmentRun")
    delete_product(folder_store, FOLDER, "PretrainRun/default/one")
    assert folder_store.exists(f"{FOLDER}/manifest.json")
    delete_product(folder_store, FOLDER, "AlignmentRun/default/two")
    assert list(folder_store.list()) == []


def test_without_a_document_all_names_go(folder_store: ObjectStore) -> None:
    fill(folder_store)
    name(folder_store, "one")
    name(folder_store, "two")
    delete_product(folder_store, FOLDER)
    assert list(folder_store.list()) == []


@pytest.mark.parametrize(
    ("published", "asked", "stays"),
    [("new", "old", True), ("old", "old", False), (None, "old", False), ("new", None, False)],
    ids=["a later document's of that name", "its own", "of a version without UIDs", "whoever's has that name"],
)
def test_a_product_that_a_later_document_of_the_same_name_uses_stays(
    folder_store: ObjectStore, published: str | None, asked: str | None, stays: bool
) -> None:
    fill(folder_store)
    name(folder_store, "mine", uid=published)
    delete_product(folder_store, FOLDER, "PretrainRun/default/mine", asked)
    assert folder_store.exists(f"{FOLDER}/manifest.json") is stays
    assert (lookup(folder_store, "PretrainRun", "default", "mine") is not None) is stays


@pytest.mark.parametrize(
    ("last", "stays"), [("new", True), ("old", False), (None, False)], ids=["a later document", "itself", "nobody says"]
)
def test_what_is_not_finished_belongs_to_the_document_that_was_the_last_to_work_at_it(
    folder_store: ObjectStore, last: str | None, stays: bool
) -> None:
    fill(folder_store)
    folder_store.delete(f"{FOLDER}/manifest.json")
    left = {"run": "PretrainRun/default/mine", "attempt": 1, "free": True} | ({"uid": last} if last else {})
    folder_store.put(f"{FOLDER}/{LOCK}", json.dumps(left).encode())
    assert delete_product(folder_store, FOLDER, "PretrainRun/default/mine", "old") is True
    assert folder_store.exists(f"{FOLDER}/model/config.json") is stays


def test_nothing_where_a_product_must_be_is_told_apart(
    folder_store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(folder_store)
    storage = json.dumps(StorageSpec(uri=folder_store.uri).document())
    command = ["--storage-json", storage, f"--prefix={FOLDER}"]
    assert [main([*command, *more]) for more in (["--must-exist"], [], ["--must-exist"])] == [0, 0, 3]
    assert f"{FOLDER}: found nothing; allowed: the product" in capsys.readouterr().err


def test_what_is_anothers_too_is_there(folder_store: ObjectStore) -> None:
    fill(folder_store)
    name(folder_store, "one")
    name(folder_store, "two")
    assert delete_product(folder_store, FOLDER, "PretrainRun/default/one") is True


def test_a_lease_that_was_given_back_still_says_whose_it_was(new_bucket: Callable[[str], Any]) -> None:
    bucket = new_bucket("moto")
    store = open_store(bucket.uri, endpoint=bucket.endpoint)
    spec = DatasetBuildSpec.model_validate({"sources": [{"uri": "builtin:python-stdlib"}]}, strict=False)
    run = DatasetBuildFile(name="mine", uid="new", key=DIGEST, output=StorageSpec(uri=bucket.uri), spec=spec)
    with lock(store.child(FOLDER), LOCK, run):
        store.put(f"{FOLDER}/work/part", b"half a dataset")
    delete_product(store, FOLDER, "DatasetBuild/default/mine", "old")
    assert store.exists(f"{FOLDER}/work/part")
    delete_product(store, FOLDER, "DatasetBuild/default/mine", "new")
    assert list(store.list()) == []


def test_where_a_process_works_nothing_is_deleted(folder_store: ObjectStore) -> None:
    fill(folder_store)
    with lock(folder_store.child(FOLDER), LOCK), pytest.raises(ConflictError):
        delete_product(folder_store, FOLDER)
    assert folder_store.exists(f"{FOLDER}/manifest.json")


@pytest.mark.parametrize(
    "folder",
    ["", ".", "models", "models/", "models/..", f"{FOLDER}/checkpoints", f"../{FOLDER}", "names/PretrainRun", "/etc",
     "models/0123456789ABCDEF", f"{FOLDER}\n", "models/*"],
)  # fmt: skip
def test_what_is_not_a_products_folder_is_refused(
    folder_store: ObjectStore, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(folder_store)
    storage = json.dumps(StorageSpec(uri=folder_store.uri).document())
    assert main(["--storage-json", storage, f"--prefix={folder}"]) == 2
    assert "allowed: datasets/<key> or models/<key>, 16 hexadecimal digits" in capsys.readouterr().err
    assert len(list(folder_store.list())) == 3


def test_a_wrong_store_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--storage-json", '{"uri": "ftp://x"}', f"--prefix={FOLDER}"]) == 2
    assert capsys.readouterr().err.startswith("--storage-json: found ")
