"""The stores under test, and what can go wrong around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from proxies import Proxy

from kindling_storage import ObjectStore, open_store

STORES = ["file", "moto", pytest.param("minio", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
ONLY_REAL = ("lease", "put_if_absent", "committing", "in_parts", "upload")
"""Parts of the names of tests in which moto is no proof: leases, conditional puts, uploads in parts."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What moto proves is repeated on MinIO by the exhaustive tests alone."""
    for item in items:
        repeats = item.path.parent == Path(__file__).parent and "[minio" in item.name
        if repeats and not any(part in item.nodeid for part in ONLY_REAL):
            item.add_marker(pytest.mark.exhaustive)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path, new_bucket: Callable) -> ObjectStore:
    """Each kind of store in turn, empty, under a prefix."""
    if request.param == "file":
        return open_store(f"file://{tmp_path}/a store")
    bucket = new_bucket(request.param)
    return open_store(f"{bucket.uri}/a/prefix", endpoint=bucket.endpoint)


@pytest.fixture
def folder_store(tmp_path: Path) -> ObjectStore:
    return open_store(f"file://{tmp_path}/store")


@pytest.fixture
def s3_store(s3_bucket) -> ObjectStore:
    return open_store(f"{s3_bucket.uri}/a/prefix", endpoint=s3_bucket.endpoint)


class CuttingProxy(Proxy):
    """Passes connections on to a server, and cuts the next `cuts` of them after `after` bytes of answers."""

    def __init__(self, endpoint: str) -> None:
        self.cuts, self.after = 0, 0
        super().__init__(endpoint)

    def passes(self, carried: int, *, answers: bool) -> bool:
        if not (answers and self.cuts and carried > self.after):
            return True
        self.cuts -= 1
        return False


@pytest.fixture
def proxied(s3_bucket) -> Iterator[tuple[CuttingProxy, ObjectStore]]:
    """A proxy, and a store that is reached through it."""
    proxy = CuttingProxy(s3_bucket.endpoint)
    yield proxy, open_store(s3_bucket.uri, endpoint=proxy.endpoint)
    proxy.close()
