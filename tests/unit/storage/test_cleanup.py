"""Deleting a product, and nothing else."""

from __future__ import annotations

import json

import pytest

from kindling_api.base import Kind
from kindling_api.errors import ConflictError
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_storage import ObjectStore
from kindling_storage.cleanup import delete_product, main
from kindling_storage.hold import LOCK, hold
from kindling_storage.names import Published, lookup, publish

FOLDER, OTHER = "models/0123456789abcdef", "models/0123456789abcde0"
DIGEST = "sha256:" + "0" * 64


def fill(store: ObjectStore, folder: str = FOLDER) -> None:
    for path in ("manifest.json", "model/config.json", "checkpoints/step-00000005-a1/part-00000.safetensors"):
        store.put(f"{folder}/{path}", b"content")


def name(store: ObjectStore, name: str, folder: str = FOLDER, kind: Kind = "PretrainRun") -> None:
    publish(store, kind, "default", name, Published(uri=store.child(folder).uri, digest=DIGEST, key=DIGEST))


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


def test_where_a_process_works_nothing_is_deleted(folder_store: ObjectStore) -> None:
    fill(folder_store)
    with hold(folder_store.child(FOLDER), LOCK), pytest.raises(ConflictError):
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
