"""Products exist when their manifest does."""

from __future__ import annotations

import pytest

from kindling_api.base import digest_of
from kindling_api.errors import ConflictError, IntegrityError, NotFoundError
from kindling_api.v1alpha1.products import FileEntry, Manifest
from kindling_storage import ObjectStore
from kindling_storage.commit import (
    commit,
    discard_damaged,
    faults_of,
    file_entry,
    put_file,
    read_manifest,
    read_whole,
    verify,
)

KEY = digest_of(b"key")


def product(store: ObjectStore, **contents: bytes) -> Manifest:
    return Manifest(key=KEY, files=[put_file(store, path, data) for path, data in contents.items()])


def test_a_committed_product_is_read_back(store: ObjectStore) -> None:
    manifest = product(store, a=b"one", b=b"two")
    assert read_manifest(store, Manifest) is None
    assert commit(store, manifest) == manifest.digest
    assert read_manifest(store, Manifest) == manifest
    assert digest_of(store.get("manifest.json")) == manifest.digest


def test_committing_the_same_again_is_fine(store: ObjectStore) -> None:
    manifest = product(store, a=b"one")
    assert commit(store, manifest) == commit(store, manifest) == manifest.digest


def test_committing_something_else_is_a_conflict(store: ObjectStore) -> None:
    first, second = product(store, a=b"one"), product(store, a=b"other")
    commit(store, first)
    with pytest.raises(ConflictError) as raised:
        commit(store, second)
    assert str(raised.value) == (
        f"{store.uri}/manifest.json: found a finished product with other contents; "
        f"allowed: none, or the one with digest {second.digest}. "
        "To fix it: use the one that is there, or delete its folder and run again."
    )
    assert read_manifest(store, Manifest) == first


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "Invalid JSON: EOF while parsing a value at line 1 column 0"),
        (b'{"key": "sha256:', "Invalid JSON: EOF while parsing a string at line 1 column 16"),
        (b"\xff\xfe\x00", "Invalid JSON: expected value at line 1 column 1"),
        (b'{"files": []}', "key: Field required"),
        (b"[]", "Input should be an object"),
    ],
    ids=["empty", "torn", "binary", "incomplete", "not an object"],
)
def test_a_damaged_manifest_is_never_taken_for_one(folder_store: ObjectStore, data: bytes, found: str) -> None:
    folder_store.put("manifest.json", data)
    with pytest.raises(IntegrityError) as raised:
        read_manifest(folder_store, Manifest)
    assert str(raised.value) == (
        f"{folder_store.uri}/manifest.json: found {found}; allowed: the Manifest that Kindling writes. "
        "To fix it: check the URI; a damaged product is made again once its folder is deleted."
    )


def test_a_whole_product_has_no_problems(store: ObjectStore) -> None:
    assert list(verify(store, product(store, a=b"one", b=b""))) == []


def test_what_is_missing_short_or_changed_is_found(store: ObjectStore) -> None:
    manifest = product(store, gone=b"x", short=b"12345", changed=b"abc", sound=b"same")
    store.delete("gone")
    store.put("short", b"123")
    store.put("changed", b"abd")
    assert list(verify(store, manifest)) == [
        "gone is missing",
        "short has 3 bytes, not 5",
        f"changed has digest {digest_of(b'abd')}, not {digest_of(b'abc')}",
    ]


def test_a_file_that_is_there_already_can_be_described(store: ObjectStore) -> None:
    assert put_file(store, "a", b"content") == file_entry(store, "a")
    assert file_entry(store, "a") == FileEntry(path="a", size=7, digest=digest_of(b"content"))
    with pytest.raises(NotFoundError):
        file_entry(store, "b")


def test_what_is_damaged_counts_as_not_made_and_makes_room_for_another(folder_store: ObjectStore) -> None:
    manifest = product(folder_store, a=b"content")
    commit(folder_store, manifest)
    assert faults_of(folder_store, Manifest) == []
    discard_damaged(folder_store, Manifest)
    assert read_whole(folder_store, Manifest) == manifest
    folder_store.put("a", b"contents")
    assert faults_of(folder_store, Manifest) == ["a has 8 bytes, not 7"]
    assert read_whole(folder_store, Manifest) is None
    discard_damaged(folder_store, Manifest)
    assert not folder_store.exists("manifest.json")
