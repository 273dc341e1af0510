"""Objects as local files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kindling_api.base import digest_of
from kindling_api.errors import IntegrityError, NotFoundError
from kindling_storage import ObjectStore
from kindling_storage.cache import materialize

DATA = bytes(range(256)) * 1000


def test_an_object_becomes_a_local_file(store: ObjectStore, tmp_path: Path) -> None:
    store.put("train.bin", DATA)
    assert materialize(store, "train.bin", digest_of(DATA), tmp_path / "new" / "cache").read_bytes() == DATA


def test_an_object_in_a_folder_is_used_where_it_is(folder_store: ObjectStore, tmp_path: Path) -> None:
    folder_store.put("a", DATA)
    assert materialize(folder_store, "a", digest_of(DATA), tmp_path / "cache") == folder_store.local_path("a")
    assert not (tmp_path / "cache").exists()


def test_an_object_is_downloaded_once(s3_store: ObjectStore, tmp_path: Path) -> None:
    s3_store.put("a", DATA)
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: materialize(s3_store, "a", digest_of(DATA), tmp_path), range(8)))
    assert len(set(paths)) == 1
    s3_store.delete("a")
    assert materialize(s3_store, "a", digest_of(DATA), tmp_path).read_bytes() == DATA


def test_what_differs_from_its_digest_is_not_kept(s3_store: ObjectStore, tmp_path: Path) -> None:
    s3_store.put("a", DATA + b"!")
    with pytest.raises(IntegrityError) as raised:
        materialize(s3_store, "a", digest_of(DATA), tmp_path)
    assert str(raised.value) == (
        f"{s3_store.uri}/a: found {digest_of(DATA + b'!')}; allowed: {digest_of(DATA)}. To fix it: run again; "
        "if it stays, the object is damaged: delete the product's folder and make it again."
    )
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_an_object_that_is_not_there_is_reported(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        materialize(store, "nothing", digest_of(DATA), tmp_path / "cache")
