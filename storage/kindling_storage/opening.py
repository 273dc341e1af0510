"""From a URI to the store that is there."""

from __future__ import annotations

import os
from pathlib import Path

from kindling_api.errors import SpecError, explain
from kindling_api.hub import is_hub
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_storage.files import FileStore
from kindling_storage.hub.store import HubStore
from kindling_storage.store import ObjectStore


def open_store(
    where: str | StorageSpec,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    unsigned: bool = False,
    requester_pays: bool = False,
    credentials_secret: str | None = None,
) -> ObjectStore:
    """The store at a URI, `file:///folder`, `s3://bucket/prefix` or `hf://owner/name`, at an absolute path, or at a
    document's `storage`.

    Nothing is contacted or created yet. S3 credentials come from the mounted Secret of a pod, that of the products'
    store or `credentials_secret`, a source's; where none is mounted, from boto3's usual chain (environment, ~/.aws, pod
    or instance identity). They are left out where requests are `unsigned`.

    Raises:
        SpecError: the URI, or the endpoint, is not one that a store can have.
    """
    if isinstance(where, StorageSpec):
        return open_store(where.uri, endpoint=where.endpoint, region=where.region)
    scheme, separator, rest = where.partition("://")
    if separator and scheme == "file":
        return FileStore.from_uri(where)
    if where.startswith("/"):
        return FileStore(Path(os.path.normpath(where)))
    if separator and scheme == "s3" and rest and not rest.startswith("/"):
        from kindling_storage.s3.bucket import Access  # not above: boto3 takes a third of a second to load
        from kindling_storage.s3.store import S3Store

        access = Access(unsigned, requester_pays, credentials_secret)
        return S3Store.from_uri(where, endpoint=endpoint, region=region, access=access)
    if is_hub(where):
        return HubStore.from_uri(where)
    allowed = "file:///folder or s3://bucket/prefix"
    raise SpecError(explain("storage uri", found=repr(where), allowed=allowed, remedy="write one of these two forms"))
