"""Which storage a document keeps to: the one that it was accepted with, whatever the default is by now."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from kindling_api.documents import Document
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.settings import Settings
from kindling_operator.world import Object

_PRODUCT = re.compile(r"(?P<storage>.+?)/(?:datasets|models)/[0-9a-f]{16}(?:/.*)?")
"""The URI of a product, or of something in it."""


def storage_of(
    status: Object, document: Document | None, settings: Settings, written: StorageSpec | None = None
) -> StorageSpec | None:
    """Where a document's products are, or are to be; None where neither it nor the installation says so.

    Args:
        status: as it is on the wire. One that an earlier version wrote has no storage.
        document: None where it cannot be read (any more).
        written: the storage in the run file of the newest attempt, where that was looked for.
    """
    recorded = _storage(status.get("storage"))
    own = document.spec.storage if document is not None else None
    return recorded or own or written or _assumed(status, settings.storage)


def is_assumed(status: Object, storage: StorageSpec, settings: Settings) -> bool:
    """Whether this storage is today's default at another address: the one that the status tells of its products."""
    return settings.storage is not None and storage == _assumed(status, settings.storage) != settings.storage


def _assumed(status: Object, default: StorageSpec | None) -> StorageSpec | None:
    """The default, unless a product is somewhere else: then it was another one when that was made."""
    for found in (status.get("result"), status.get("checkpoint")):
        place = _PRODUCT.fullmatch(str((found or {}).get("uri", "")))
        if place and default is not None and place["storage"] != default.uri.rstrip("/"):
            return default.model_copy(update={"uri": place["storage"]})
    return default


def _storage(found: Any) -> StorageSpec | None:
    try:
        return StorageSpec.model_validate(found) if found else None
    except ValidationError:
        return None
