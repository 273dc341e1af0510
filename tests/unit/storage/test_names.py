"""From names to products."""

from __future__ import annotations

from pathlib import Path

import pytest

from kindling_api.base import digest_of
from kindling_api.errors import IntegrityError
from kindling_storage import ObjectStore, open_store
from kindling_storage.names import Published, lookup, publish

OLD = Published(uri="file:///s/datasets/1", digest=digest_of(b"1"), key=digest_of(b"k1"))
NEW = Published(uri="file:///s/datasets/2", digest=digest_of(b"2"), key=digest_of(b"k2"))


def test_a_name_leads_to_the_newest_product(store: ObjectStore) -> None:
    assert lookup(store, "DatasetBuild", "default", "web") is None
    publish(store, "DatasetBuild", "default", "web", OLD)
    publish(store, "DatasetBuild", "default", "web", NEW)
    found = lookup(store, "DatasetBuild", "default", "web")
    assert found == NEW.model_copy(update={"uri": store.child("datasets/2").uri})
    assert lookup(store, "DatasetBuild", "other", "web") is None
    assert lookup(store, "PretrainRun", "default", "web") is None


def test_a_name_is_one_small_object(folder_store: ObjectStore) -> None:
    publish(folder_store, "PretrainRun", "team-a", "tiny", OLD)
    assert folder_store.get("names/PretrainRun/team-a/tiny.json") == (
        f'{{"digest":"{OLD.digest}","key":"{OLD.key}","uri":"file:///s/datasets/1"}}'.encode()
    )


def test_a_store_that_was_moved_takes_its_names_along(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    store = open_store(before.as_uri())
    place = Published(uri=store.child("models/1").uri, digest=digest_of(b"1"), key=digest_of(b"k1"))
    publish(store, "PretrainRun", "default", "tiny", place)
    before.rename(after)
    found = lookup(open_store(after.as_uri()), "PretrainRun", "default", "tiny")
    assert found is not None
    assert found.uri == (after / "models" / "1").as_uri()


def test_a_damaged_name_is_reported(folder_store: ObjectStore) -> None:
    folder_store.put("names/DatasetBuild/default/web.json", b'{"uri": "x"}')
    with pytest.raises(IntegrityError) as raised:
        lookup(folder_store, "DatasetBuild", "default", "web")
    assert str(raised.value) == (
        f"{folder_store.uri}/names/DatasetBuild/default/web.json: found 2 wrong fields; "
        "allowed: uri, digest and key of a product. "
        "To fix it: delete this object and run again; products are reused."
    )
